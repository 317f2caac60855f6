"""The model card of a bundle."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from nas.detectors.inputs import IMAGE_MEAN, IMAGE_STD
from nas.export.trained import Trained

_CARD = """# {layout}

A {pattern} detection backbone, trained {start} as part of {detector} on {data}. C stages are ResNet bottlenecks, T stages
are Swin blocks.

| stage | kind | blocks | channels | stride |
| --- | --- | --- | --- | --- |
{stages}

| figure | value |
| --- | --- |
{figures}

## Use the backbone

```python
from backbone import load_backbone

backbone = load_backbone("backbone.safetensors").eval()
maps = backbone(images)  # images [B, 3, H, W]
```

`backbone.py` needs torch and torchvision (and safetensors to read the weights), nothing else. Images are RGB in 0 to 1, minus
{mean}, over {std}; any size. In a torchvision detector: give the four maps to a `FeaturePyramidNetwork` with the input channels
{widths}.

## Use the detector

```
nas evaluate . --data DIR        # its COCO metrics on a data set with the same categories
nas train . --data DIR --out NEW # the same candidate, trained again
```

Categories, label 1 first: {categories}. Images are resized to a short side of {image_size} pixels, the long side to {long_side}
at most.

## How it was trained

{recipe}

## Where it comes from

{origin}
"""


def model_card(trained: Trained) -> str:
    """Markdown for people: what it is, how good, how to load it, where it comes from."""
    layout, recipe = trained.layout, trained.recipe
    stages = [
        f"| {index} | {stage.kind} | {stage.depth} | {stage.width} | {2 ** (index + 1)} |"
        for index, stage in enumerate(layout.stages, start=1)
    ]
    calibration = "-" if recipe.weights else trained.calibration.model_dump(mode="json")
    return _CARD.format(
        layout=layout,
        pattern=layout.pattern,
        start=f"from the weights in {PurePath(recipe.weights).name}" if recipe.weights else "from scratch",
        detector=trained.detector.name,
        data=trained.origin.get("data", "unknown data"),
        stages="\n".join(stages),
        figures="\n".join(f"| {name} | {_cell(value)} |" for name, value in trained.figures.items()),
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
        widths=", ".join(map(str, layout.widths)),
        categories=", ".join(trained.categories),
        image_size=recipe.image_size,
        long_side=recipe.long_side,
        recipe=_list({**recipe.model_dump(mode="json"), "calibration": calibration}),
        origin=_list(trained.origin),
    )


def _list(values: dict[str, Any]) -> str:
    return "\n".join(f"- {name}: {_cell(value)}" for name, value in values.items())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(inner)}" for name, inner in value.items())
    return "-" if value is None else str(value)
