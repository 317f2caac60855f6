"""What travels to a worker: one candidate as plain JSON, and the index files of its data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.data.coco import CocoSplit
from nas.data.splits import Splits, read_index, write_index
from nas.profiling.memory.gpu_share import cap_bytes
from nas.reports import EpochReport
from nas.search.search import Search, TrialAssignment
from nas.training.candidate import Candidate
from nas.training.launch import train_on
from nas.utils.device import default_device
from nas.utils.paths import is_remote, localize, to_path
from search_spaces.layout import Layout


@dataclass(frozen=True)
class TrialConfigBuilder:
    """Turns assignments of one study into jobs."""

    study: Search
    num_classes: int
    indices: dict[str, str]

    @classmethod
    def prepare(cls, study: Search, splits: Splits) -> TrialConfigBuilder:
        """Write the index files that every job refers to."""
        study.files.root.mkdir(parents=True, exist_ok=True)
        indices = {name: study.files.root / f"{name}.json" for name in splits.present()}
        for name, split in splits.present().items():
            write_index(indices[name], split)
        return cls(
            study, len(splits.train.categories), {name: str(path) for name, path in indices.items()}
        )

    def job(self, assignment: TrialAssignment) -> dict[str, Any]:
        """Everything a worker needs, in JSON."""
        spec = self.study.spec.to_dict()
        return {
            "number": assignment.number,
            "layout": str(assignment.layout),
            "seed": assignment.seed,
            "folder": str(assignment.folder),
            "num_classes": self.num_classes,
            "data_root": spec["data"]["root"],
            "checkpoint_s": self.study.spec.run.checkpoint_s,
            "cache_bytes": int(self.study.spec.run.image_cache),
            "processes": self.study.spec.run.processes,
            "cap_bytes": cap_bytes(self.study.budget.limit_bytes),
            "data_folder": str(localize(spec["data"]["root"])),
            "splits": self.indices,
            **{section: spec[section] for section in ("detector", "recipe", "calibration")},
        }


def run_job(job: dict[str, Any]) -> Iterator[EpochReport]:
    """Train the candidate of a job on this machine's GPU, or CPU; see `train_candidate`."""
    candidate = Candidate(
        layout=Layout.parse(job["layout"]),
        detector=DetectorSpec.model_validate(job["detector"]),
        recipe=Recipe.model_validate(job["recipe"]),
        calibration=CalibrationSpec.model_validate(job["calibration"]),
        num_classes=job["num_classes"],
        seed=job["seed"],
        folder=to_path(job["folder"]),
        device=default_device(),
        cap_bytes=job["cap_bytes"],
        checkpoint_s=job["checkpoint_s"],
        cache_bytes=job["cache_bytes"],
    )
    splits = Splits(
        **{
            name: _index(path, job["data_root"], job["data_folder"])
            for name, path in job["splits"].items()
        }
    )
    yield from train_on(job["processes"], candidate, splits)


@lru_cache(maxsize=3)
def _index(path: str, root: str, folder: str) -> CocoSplit:
    """A worker runs many candidates on the same data; where that is a URL, on this machine's own
    copy of it.
    """
    split = read_index(to_path(path))
    return (
        replace(split, folder=localize(root) / split.folder.relative_to(folder))
        if is_remote(root)
        else split
    )
