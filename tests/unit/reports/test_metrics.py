"""The table of metrics: it fits the dataclass and pycocotools, and what is made of it."""

from __future__ import annotations

from dataclasses import fields

from nas.reports import CocoMetrics
from nas.reports.metrics import BOX_METRICS, MASK_METRICS, METRICS
from nas.study.schema import EXPORTED, TRIAL


def test_the_table_names_every_field_once_in_the_same_order():
    names = [field.name for field in fields(CocoMetrics) if field.name != "map_per_class"]
    assert [metric.name for metric in METRICS] == names


def test_places_are_those_of_pycocotools():
    """`COCOeval._summarizeDets` lists them: AP, AP50, AP75, by area; AR by number, by area."""
    assert [metric.coco_index for metric in BOX_METRICS] == list(range(12))
    assert [metric.name for metric in BOX_METRICS] == [
        *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
        *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
    ]
    for metric in MASK_METRICS:
        of_boxes = BOX_METRICS[metric.coco_index]
        assert metric.name == of_boxes.name.replace("map", "map_segm")


def test_a_model_card_states_these_attributes_in_this_order():
    assert (
        *("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "map_per_class"),
        *("map_segm", "map_segm_50", "map_segm_75"),
        *("test_map", "test_map_50", "test_map_segm", "test_map_segm_50"),
        *("params", "flops", "memory_predicted_gib", "memory_peak_gib"),
        *("latency_ms", "fps", "epochs"),
        *("kept_epoch", "train_s", "gpu_s", "device"),
    ) == EXPORTED
    assert set(EXPORTED) <= set(TRIAL)
