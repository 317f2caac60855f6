"""The model card of a bundle, its README.md."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from nas.export.description import Trained
from nas.export.mmdetection.card import mmdetection_section
from nas.export.quoting import markdown_text
from nas.models.detectors.transform import ImageStatistics

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

Run in this folder, or put it on `PYTHONPATH`. `backbone.py` needs torch and torchvision (and safetensors to read the weights),
nothing else. Images are RGB in 0 to 1, minus {mean}, over {std}; any size.

```python
from backbone import load_backbone

backbone = load_backbone("backbone.safetensors").eval()
maps = backbone(images)  # images [B, 3, H, W]
```

As timm's models with `features_only=True`:

```python
from backbone import load_features

features = load_features("backbone.safetensors", out_indices=(1, 2, 3)).eval()
print(features.feature_info.channels(), features.feature_info.reduction())
maps = features(images)
```

In a torchvision detector, whose `BackboneWithFPN` cuts its backbones out of classifiers; this one is put in whole:

```python
from backbone import NamedFeatures, load_backbone
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN

pyramid = BackboneWithFPN(nn.Module(), {{}}, in_channels_list=[{widths}], out_channels=256)
pyramid.body = NamedFeatures(load_backbone("backbone.safetensors"))
model = FasterRCNN(pyramid, num_classes={classes})
```

## Use mmdetection

{mmdetection}

## Use ONNX

{onnx}

## Use the detector

```
nas verify .                     # that nothing has changed, and that all forms give the same outputs
nas reproduce . --data DIR       # the same candidate, trained again by its recipe and seed, and its mAP beside this one
nas evaluate . --data DIR        # its COCO metrics on a data set with the same categories
nas train . --data DIR --out NEW # the same candidate, trained with flags of your own
```

Categories, label 1 first: {categories}. Images are resized to a short side of {image_size} pixels, the long side to {long_side}
at most.

## How it was trained

{recipe}

## Where it comes from

The hashes in `manifest.json` prove that the files are those that were exported. They do not prove who exported them, and
`backbone.py`, `mmdet_config.py`, `mmdet_backbone.py` and `mmdet_detector.py` are code: `nas verify` runs none of it, and says
whether it is what its version of scratch-nas writes. Run that of a bundle whose origin you know.

{origin}
"""


_ONNX = """Compared with the network by onnxruntime when they were written, at image sizes that windows divide and do not.

```python
import onnxruntime

session = onnxruntime.InferenceSession("backbone.onnx")
maps = session.run(None, {"images": images.numpy()})  # any batch, height and width
```

`backbone.onnx` takes normalised images and gives the four maps. `detector.onnx`, where there is one, takes one image as `image` [1, 3, H, W],
RGB in 0 to 1, resized, of any size, normalises and pads it, and gives `boxes`, `scores` and `labels` and, if it has masks, `masks`: on a
grid over each box, the probability of each cell."""


def model_card(trained: Trained, statistics: ImageStatistics) -> str:
    """Write the model card of a bundle: what it is, how good, how to load it, where it comes from.

    Args:
        trained: the candidate.
        statistics: what its images are normalised by.

    Returns:
        Markdown.
    """
    layout, recipe = trained.layout, trained.recipe
    stages = [
        f"| {index} | {stage.kind} | {stage.depth} | {stage.width} | {2 ** (index + 1)} |"
        for index, stage in enumerate(layout.stages, start=1)
    ]
    calibration = "-" if recipe.weights else trained.calibration.model_dump(mode="json")
    return _CARD.format(
        layout=layout,
        pattern=layout.pattern,
        start=f"from the weights in {_cell(PurePath(recipe.weights).name)}"
        if recipe.weights
        else "from scratch",
        detector=trained.detector.name,
        data=_cell(trained.origin.get("data", "unknown data")),
        stages="\n".join(stages),
        figures="\n".join(
            f"| {_cell(name)} | {_cell(value)} |" for name, value in trained.figures.items()
        ),
        mean=statistics.mean,
        std=statistics.std,
        widths=", ".join(map(str, layout.widths)),
        classes=1 + len(trained.categories),
        mmdetection=mmdetection_section(trained),
        onnx="\n\n".join([_ONNX, *map(markdown_text, trained.left_out)]),
        categories=", ".join(map(_cell, trained.categories)),
        image_size=recipe.image_size,
        long_side=recipe.long_side,
        recipe=_list({**recipe.model_dump(mode="json"), "calibration": calibration}),
        origin=_list(trained.origin),
    )


def _list(values: dict[str, Any]) -> str:
    return "\n".join(f"- {_cell(name)}: {_cell(value)}" for name, value in values.items())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{_cell(name)} {_cell(inner)}" for name, inner in value.items())
    return "-" if value is None else markdown_text(str(value))
