"""`mmdet_config.py`: a trained detector in mmdetection 3, with data set and schedule.

Names and defaults are those of mmdetection's published configurations (configs/fcos, configs/atss,
configs/sparse_rcnn, configs/swin, configs/_base_/models); numbers are our detector's.
"""

from __future__ import annotations

from pprint import pformat

from nas.export.description import Trained
from nas.export.mmdetection.common import Config
from nas.export.mmdetection.dense_heads import atss, fcos
from nas.export.mmdetection.modules import classes_text
from nas.export.mmdetection.names import mmdetection_names
from nas.export.mmdetection.region_heads import cascade_mask_rcnn, faster_rcnn
from nas.export.mmdetection.set_heads import sparse_rcnn
from nas.export.mmdetection.training import (
    CLASSES,
    data_sections,
    not_translated,
    schedule_sections,
)
from nas.models.detectors import DETECTORS
from nas.models.detectors.transform import ImageStatistics
from nas.models.necks.pyramid import EXTRA_LEVELS

_CONFIG = '''"""{title}

Use: PYTHONPATH=THIS_FOLDER DATA_ROOT=DATA, with mmdetection 3. {note}
DATA is a data set as `nas convert` writes it.{lacking} Written by scratch-nas.
"""

custom_imports = dict(imports=["mmdet_backbone", "mmdet_detector"], allow_failed_imports=False)
default_scope = "mmdet"

{variable} = {classes}

{sections}
'''
_MODELS = {
    "fcos": fcos,
    "atss": atss,
    "faster_rcnn": faster_rcnn,
    "cascade_mask_rcnn": cascade_mask_rcnn,
    "sparse_rcnn": sparse_rcnn,
}
WEIGHTS = "{{ fileDirname }}/detector.safetensors"


def mmdetection_config(trained: Trained, statistics: ImageStatistics) -> str:
    """Text of `mmdet_config.py`: the whole detector where mmdetection has it, else backbone and
    neck; data set and schedule as the recipe has them.

    Args:
        trained: the candidate.
        statistics: what its images are normalised by.
    """
    known, recipe = bool(mmdetection_names(trained.detector)), trained.recipe
    sections = {
        "model": {
            **_common(trained, statistics),
            **(_MODELS[trained.detector.name](trained) if known else {}),
        },
        **data_sections(recipe, masks=trained.detector.learns_masks),
        **schedule_sections(recipe),
        **({"load_from": WEIGHTS} if known else {}),
    }
    lacking = ", ".join(not_translated(recipe))
    return _CONFIG.format(
        title=f"{trained.layout} in mmdetection.",
        note=_note(trained, known=known),
        lacking=f" Not in this schedule: {lacking}." if lacking else "",
        variable=CLASSES,
        classes=classes_text(trained.categories),
        sections="\n\n".join(f"{name} = {_text(value)}" for name, value in sections.items()),
    )


def _note(trained: Trained, *, known: bool) -> str:
    if known:
        return "The detector has its trained weights."
    return (
        f"It has no {trained.detector.name} with our {trained.detector.neck} neck: a detector type "
        "and heads are missing."
    )


def _text(value: object) -> str:
    return pformat(value, sort_dicts=False, width=100)


def _common(trained: Trained, statistics: ImageStatistics) -> Config:
    neck = DETECTORS[trained.detector.name].neck
    return {
        "data_preprocessor": {
            "type": "DetDataPreprocessor",
            "mean": [round(255 * value, 6) for value in statistics.mean],
            "std": [round(255 * value, 6) for value in statistics.std],
            "bgr_to_rgb": True,
            "pad_mask": trained.detector.learns_masks,
            "pad_size_divisor": 32,
        },
        "backbone": {
            "type": "ScratchNasBackbone",
            "weights": "{{ fileDirname }}/backbone.safetensors",
            "out_indices": tuple(range(neck["first"], 4)),
        },
        "neck": _neck(trained, neck["first"], neck["extra"]),
    }


def _neck(trained: Trained, first: int, extra: str) -> Config:
    """A feature pyramid; levels that are pooled are mmdetection's habit where it makes none by
    convolution.
    """
    widths = trained.layout.widths[first:]
    convolutions = {"add_extra_convs": "on_output", "relu_before_extra_convs": True}
    return {
        "type": "FPN",
        "in_channels": list(widths),
        "out_channels": trained.detector.channels,
        "num_outs": len(widths) + EXTRA_LEVELS[extra],
        **(convolutions if extra == "conv" else {}),
    }
