"""What a bundle's README.md says of mmdetection."""

from __future__ import annotations

from nas.export.description import Trained
from nas.export.mmdetection.names import mmdetection_names
from nas.export.mmdetection.overrides import of_detector
from nas.export.mmdetection.training import not_translated

_KNOWN = """PYTHONPATH must have this folder. mmdetection 3 then reads `detector.safetensors` by its own names.

```
from mmdet.apis import inference_detector, init_detector

model = init_detector("mmdet_config.py", "detector.safetensors", device="cpu")
print(inference_detector(model, "image.jpg").pred_instances)
```

`DATA_ROOT=DATA python tools/train.py mmdet_config.py` goes on from these weights, by the recipe's schedule. DATA is a data set as
`nas convert` writes it.{lacking} `torch.save(load_from_bundle("detector.safetensors"), "detector.pth")`, with
`load_from_bundle` from `mmdet_detector`, writes a checkpoint.

`mmdet_detector.py` has what mmdetection cannot be configured to:

{parts}

mmdetection 3.3.0 with mmcv 2.1.0 on a CPU has given the detections of `nas predict` for a detector of this kind, on 20
photographs; scratch-nas's docs/evidence.md has the differences. This bundle has not been compared: `benchmarks/mmdetection.py` of
scratch-nas does it.{unsure}"""

_UNKNOWN = """mmdetection 3 has no {name} with our {neck} neck. `mmdet_config.py` has backbone and neck, data set and schedule; a
detector type and heads are missing. PYTHONPATH must have this folder. The backbone has its weights; it was built with mmengine in
scratch-nas's tests, and mmdetection itself was not run."""


def mmdetection_section(trained: Trained) -> str:
    """Write how a bundle is used in mmdetection, what differs there, and what has been run."""
    spec = trained.detector
    if not mmdetection_names(spec):
        return _UNKNOWN.format(name=spec.name, neck=spec.neck)
    lacking = ", ".join(not_translated(trained.recipe))
    return _KNOWN.format(
        lacking=f" Its schedule does not have {lacking}." if lacking else "",
        parts="\n".join(f"- {part.reason}" for part in of_detector(spec, known=True)),
        unsure=_unsure(trained),
    )


def _unsure(trained: Trained) -> str:
    spec, said = trained.detector, ""
    if spec.name in ("faster_rcnn", "cascade_mask_rcnn"):
        said = (
            " Boxes with a side of less than 0.01 pixels, which ours leaves out, are given there."
        )
    if spec.name == "faster_rcnn" and spec.roi_op == "pool":
        said += " RoIPool has not been run there."
    return said
