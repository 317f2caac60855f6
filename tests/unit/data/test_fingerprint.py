"""The fingerprint of a data set, against its definition, and found again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.coco_files import GOOD, write

from nas.data import fingerprint as module
from nas.data.box_table import Box, BoxTable
from nas.data.coco import CocoSplit
from nas.data.fingerprint import fingerprint
from nas.data.validation import check_split

BOXES = [
    Box(1, 1, 1, (-0.0, 1e-7, 1e22, 3.0), 1e16, 1, None),
    Box(2, 1, 2, (1.1, 2.2, 3.3, 0.1 + 0.2), 7.0, 0, [[1.0, 2, 3.5, 4, 5, 6]]),
    Box(2**53, 2, 1, (0.0, 0.0, 5.0, 6.0), 30.0, 0, {"size": [4, 5], "counts": '0é"'}),
]


@pytest.fixture
def split(tmp_path: Path) -> CocoSplit:
    checked = check_split(write(tmp_path, GOOD), "train").split
    return replace(checked, boxes=BoxTable.of(BOXES))


def test_it_is_over_sorted_json_and_sizes_of_files(split: CocoSplit):
    written = json.dumps(split.to_coco(), sort_keys=True)
    sizes = [(split.folder / image.file_name).stat().st_size for image in split.images]
    first = hashlib.sha256((written + str(sizes)).encode()).hexdigest()[:16]
    last = hashlib.sha256(split.content.encode()).hexdigest()[:16]
    assert fingerprint([split]) == first + last


def test_a_known_data_set_is_not_written_out_again(
    split: CocoSplit, monkeypatch: pytest.MonkeyPatch
):
    known = fingerprint([split, split])
    monkeypatch.setattr(module, "_json_parts", None)
    assert fingerprint([split, split]) == known
    boxes = {
        "a box": [replace(BOXES[0], area=2.0), *BOXES[1:]],
        "a mask": [*BOXES[:2], replace(BOXES[2], segmentation=None)],
        "one box fewer": BOXES[:2],
    }
    others = [replace(split, boxes=BoxTable.of(each)) for each in boxes.values()]
    others += [replace(split, images=split.images[:1]), replace(split, content="other")]
    others += [replace(split, categories=split.categories[:1]), replace(split, white_level=255)]
    for other in others:
        with pytest.raises(TypeError):
            fingerprint([other, split])
