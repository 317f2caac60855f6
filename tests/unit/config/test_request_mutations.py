"""Requests with changed values, keys, structure and bytes, as `nas submit` reads them: each makes a
search space, or is refused in one line.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.bounds import command_end, refused_in_one_line
from helpers.coco_files import GOOD, write
from helpers.mutations import HOSTILE_VALUES, VALUES, changed, damaged, number_of_times

from nas.api.requests import checked_spec
from nas.config.spec import SearchSpec, load_spec
from nas.study.provenance import public_spec
from search_spaces.layout import Layout

EXAMPLE = Path(__file__).parents[3] / "examples" / "digits.yaml"
LAYOUT = "C1-T1-T2-T1@64+window=8+norm=gn+mlp_ratio=3.5+head_dim=16"
MOST_KEYS: dict[str, Any] = {
    "study": "cells",
    "storage": "postgresql+psycopg://me:secret@host/nas",
    "data": {"root": "ROOT", "test": "val", "train_fraction": 0.5, "images": "SPLIT"},
    "space": {
        "name": "mine",
        "stages": [
            {"kinds": ["C"], "depths": [1, 2, 3]},
            {"kinds": ["C", "T"], "depths": {"low": 1, "high": 4}},
            {"kinds": ["T"], "depths": {"low": 2, "high": 24, "step": 2}},
            {"kinds": ["T"], "depths": [1]},
        ],
        "channels": [64, 96],
        "stems": ["auto", "patch"],
        "conditions": ["C never after T"],
        "layout": {"window": 8, "norm": "gn", "mlp_ratio": 3.5, "head_dim": 16},
        "defaults": {"recipe": "tiny", "search": {"trials": 3}},
    },
    "recipe": {
        "name": "custom",
        **{"epochs": 3, "image_size": 64, "max_size": 96, "train_sizes": [64, 96]},
        **{"batch": 4, "images_per_gpu": 2, "lr": 1e-3, "decay_epochs": [2], "patience": 2},
        **{"loader_workers": "auto", "augmentation": "strong", "clip_norm": 1.0, "ema": 0.9},
    },
    "detector": {"name": "atss", "neck": "bifpn", "nms_iou": 0.5, "score_threshold": 0.1},
    "budget": {"memory": "2GiB", "like": "T1-T1-T2-T1@24", "flops": "50G", "latency": "20ms"},
    "calibration": {"definition": "paper", "alpha": 0.5, "passes": 2},
    "search": {"trials": 4, "objectives": ["map", "flops"], "try": [LAYOUT]},
    "run": {"output": "runs", "gpus_per_trial": 2},
}
NAMES = ["name", "root", "stages", "depths", "epochs", "recipe", "calibration", "x", "layout"]
PIECES = [
    *(b"[", b"]", b"{", b"}", b"'", b'"', b"#", b"%", b"|", b">", b": ", b"- ", b"\n", b"\t"),
    *(b"*a ", b"&a ", b"<<: ", b"? ", b"!!python/object:os.system ", b"!!binary ", b"!!set "),
    *(b"---\n", b"...\n", b"\x00", b"\xff\xfe", b"\xe2\x80\xa8", b"[" * 100, b"9" * 5000),
]


@pytest.fixture
def requests(tmp_path: Path) -> list[dict[str, Any]]:
    """One of the README, one that names most keys, and one that names all of them."""
    root = write(write(tmp_path / "data", GOOD), GOOD, "val")
    few = yaml.safe_load(EXAMPLE.read_text()) | {"data": {"root": str(root)}}
    most = copy.deepcopy(MOST_KEYS)
    most["data"]["root"] = str(root)
    return [few, most, load_spec(few, {}).to_dict()]


def changed_text(request: dict[str, Any], rng: random.Random) -> bytes:
    values = [*VALUES, *HOSTILE_VALUES]
    return yaml.safe_dump(changed(request, rng, NAMES, values)).encode()


def damaged_text(request: dict[str, Any], rng: random.Random) -> bytes:
    text = yaml.safe_dump(request, default_flow_style=rng.choice([None, True, False]))
    return damaged(text.encode(), rng, PIECES)


def read(path: Path) -> None:
    """As a search does: the request that it stores must be the one that it goes on with."""
    spec = checked_spec(path, {})
    space = spec.search_space()
    assert space.describe()
    for layout in (next(iter(space)), next(space.shuffled(0))):
        assert space.decode(space.encode(layout)) == layout == Layout.parse(str(layout))
    stored = json.dumps(spec.to_dict())
    assert json.dumps(SearchSpec.model_validate(json.loads(stored)).to_dict()) == stored
    assert public_spec(spec)


@number_of_times(60, 5000)
@pytest.mark.parametrize("mutate", [changed_text, damaged_text])
def test_any_request_is_read_or_refused_in_a_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    requests: list[dict[str, Any]],
    mutate: Callable[[dict[str, Any], random.Random], bytes],
    times: int,
):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    path, refused = tmp_path / "request.yaml", 0
    for request in requests:
        path.write_text(yaml.safe_dump(request))
        assert not refused_in_one_line(command_end(lambda: read(path), tmp_path / "out"))
    for number in range(times):
        rng = random.Random(number)
        path.write_bytes(content := mutate(rng.choice(requests), rng))
        try:
            ended = command_end(lambda: read(path), tmp_path / "out")
        except BaseException as error:
            raise AssertionError(f"number {number}: {content[:2000]!r}") from error
        refused += refused_in_one_line(ended)
    assert 0 < refused < times
    assert list((tmp_path / "out").iterdir()) == []
