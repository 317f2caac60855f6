"""What travels to a worker: one candidate as plain JSON, and the index files of its data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.data.coco import CocoSplit
from nas.data.split_index import read_index, write_index
from nas.data.splits import Splits
from nas.reports import EpochReport
from nas.search.search import Search
from nas.search.trial_queue import TrialAssignment
from nas.utils.device import default_device
from nas.utils.gpu_share import cap_bytes
from nas.utils.paths import is_copied, localize, to_path
from search_spaces.layout import Layout


@dataclass(frozen=True)
class TrialConfigBuilder:
    """Makes of each assignment of a search the configuration that a worker needs.

    Attributes:
        search: whose assignments they are.
        num_classes: of the data, without the background.
        indices: path of the index file of each split, by the split's name.
    """

    search: Search
    num_classes: int
    indices: dict[str, str]

    @classmethod
    def prepare(cls, search: Search, splits: Splits) -> TrialConfigBuilder:
        """Write the index files that every configuration refers to, into the study's folder."""
        search.files.root.mkdir(parents=True, exist_ok=True)
        indices = {name: search.files.root / f"{name}.npz" for name in splits.present()}
        for name, split in splits.present().items():
            write_index(indices[name], split)
        return cls(
            search,
            len(splits.train.categories),
            {name: str(path) for name, path in indices.items()},
        )

    def build(self, assignment: TrialAssignment) -> dict[str, Any]:
        """Make the configuration of a trial: everything that `run_trial` needs, in plain JSON."""
        spec = self.search.spec.to_dict()
        return {
            "number": assignment.number,
            "layout": str(assignment.layout),
            "seed": assignment.seed,
            "folder": str(assignment.folder),
            "num_classes": self.num_classes,
            "data_root": spec["data"]["root"],
            "checkpoint_s": self.search.spec.run.checkpoint_s,
            "cache_bytes": int(self.search.spec.run.image_cache),
            "processes": self.search.spec.run.processes,
            "cap_bytes": cap_bytes(self.search.budget.limit_bytes),
            "data_folder": str(localize(spec["data"]["root"])),
            "splits": self.indices,
            "stop_at": self.search.clock.stop_at if self.search.clock else None,
            **{section: spec[section] for section in ("detector", "recipe", "calibration")},
        }


def run_trial(config: dict[str, Any]) -> Iterator[EpochReport]:
    """Train a candidate on this machine's GPU or CPU; yields a report after each epoch.

    Args:
        config: of the trial, from `TrialConfigBuilder.build`.

    Raises:
        Exception: whatever ends a training, see `nas.training.candidate.train_candidate`.
    """
    from nas.training.candidate import Candidate  # with PyTorch, which a driver may never need
    from nas.training.launch import train_on

    candidate = Candidate(
        layout=Layout.parse(config["layout"]),
        detector=DetectorSpec.model_validate(config["detector"]),
        recipe=Recipe.model_validate(config["recipe"]),
        calibration=CalibrationSpec.model_validate(config["calibration"]),
        num_classes=config["num_classes"],
        seed=config["seed"],
        folder=to_path(config["folder"]),
        device=default_device(),
        cap_bytes=config["cap_bytes"],
        checkpoint_s=config["checkpoint_s"],
        cache_bytes=config["cache_bytes"],
        stop_at=config.get("stop_at"),
    )
    splits = Splits(
        **{
            name: _index(path, config["data_root"], config["data_folder"])
            for name, path in config["splits"].items()
        }
    )
    yield from train_on(config["processes"], candidate, splits)


@lru_cache(maxsize=3)
def _index(path: str, root: str, folder: str) -> CocoSplit:
    """A worker runs many candidates on the same data; where that is a URL or a zip file, on this
    machine's own copy of it.
    """
    split = read_index(to_path(path))
    return (
        replace(split, folder=localize(root) / split.folder.relative_to(folder))
        if is_copied(root)
        else split
    )
