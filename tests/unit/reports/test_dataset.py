"""Summaries of data sets, there and back through JSON."""

from __future__ import annotations

import json

from nas.reports import DatasetSummary


def test_a_summary_survives_json():
    summary = DatasetSummary(
        "f00d", ("a", "b"), 8, 9, 3, 4, 2, (4, 3, 96, 160), {"tall": 1}, {}, masks=True
    )
    written = summary.to_dict()
    assert json.loads(json.dumps(written)) == written
    assert DatasetSummary.from_dict(written) == summary
    assert list(written)[:3] == ["fingerprint", "categories", "train_images"]


def test_summaries_from_before_there_were_masks_have_none():
    written = DatasetSummary("f", ("a",), 1, 1, 1, 1, 1, (1, 3, 32, 32), {}, {}).to_dict()
    del written["masks"]
    assert DatasetSummary.from_dict(written).masks is False
