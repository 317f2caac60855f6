"""Whether a bundle is what was exported, and whether its candidate can be trained again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nas.api.callbacks import TrainingCallback
from nas.api.evaluation import score_bundle
from nas.api.requests import training_request
from nas.api.training import train_bundle
from nas.data.split_source import Places
from nas.errors import BundleError, UserError
from nas.export.bundle import read_description
from nas.export.description import Trained
from nas.export.verify import Check, verify
from nas.utils.device import num_threads
from nas.utils.formatting import percent
from nas.utils.progress import CountProgress
from search_spaces.layout import Layout

# Between scorings of the same weights: batches of other sizes sum in another order.
MAP_TOLERANCE = 1e-4
# Between trainings on other hardware or versions, whose rounding sends them apart.
RETRAINED_MAP_TOLERANCE = 0.01


@dataclass(frozen=True)
class Reproduction:
    """A second training of a bundle's candidate, beside the first.

    Args:
        layout: what was trained.
        map_before: mAP of the bundle, a fraction.
        map: mAP of the second training.
        differing: versions and hardware that are not the same, in sentences.
        tolerance: how far the two may be apart.
    """

    layout: Layout
    map_before: float
    map: float
    differing: list[str]
    tolerance: float

    @property
    def same(self) -> bool:
        """Whether both trainings have the same mAP, within the tolerance."""
        return abs(self.map - self.map_before) <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, without the layout."""
        return {
            "map": self.map,
            "map_before": self.map_before,
            "same": self.same,
            "tolerance": self.tolerance,
            "differing": self.differing,
        }


def verify_bundle(
    bundle: Path, data: str | None, on_image: CountProgress, *, run_code: bool = False
) -> tuple[Trained, list[Check]]:
    """Check every byte of a bundle, that everything loads, and that all forms give the same
    outputs.

    Args:
        bundle: its folder.
        data: where given, the bundle is scored on the validation images there, and must have the
            mAP that it says.
        on_image: is told of every image of `data` that is checked.
        run_code: also run its Python files, which can do whatever you can.

    Raises:
        BundleError: something is wrong; the text names it.
        UserError: the data cannot be used.
    """
    trained, _, checks = verify(bundle, run_code=run_code)
    if data:
        asked = trained.request.get("data", {})
        split, places = (
            asked.get("val", "val"),
            Places(asked.get("annotations"), asked.get("images")),
        )
        scored = score_bundle(bundle, data, split, on_image, places=places).metrics.map
        stated = trained.figures.get("map")
        if scored is None or not _is_near(stated, scored):
            raise BundleError(f"the mAP on {data!r} is {scored}, the bundle says {stated}")
        checks.append(Check("mAP", True, f"{percent(scored)} on {data}, as the bundle says"))
    return trained, checks


def _is_near(stated: Any, scored: float) -> bool:
    """Whether a figure is a score's; what is no number, or not a number, is not."""
    return isinstance(stated, int | float) and abs(scored - stated) <= MAP_TOLERANCE


def reproduce_bundle(
    bundle: Path,
    data: str,
    out: Path | None,
    callback: TrainingCallback,
    *,
    other_data: bool = False,
    tolerance: float | None = None,
    onnx: bool = True,
) -> Reproduction:
    """Train the candidate of a bundle again, by its recipe, its seed and as many threads.

    Args:
        bundle: its folder.
        data: the data set it was trained on, a folder or a URL.
        out: folder of the new bundle; None keeps none.
        callback: is told what happens.
        other_data: go on where the data set is not the bundle's.
        tolerance: largest difference of the mAP, a fraction; None: 0 on the same CPU and versions,
            else `RETRAINED_MAP_TOLERANCE`.
        onnx: write ONNX files into the new bundle.

    Raises:
        UserError: the bundle has no mAP, or something that it asks for cannot be done.
        CandidateError: the training diverged or does not fit into memory.
    """
    before = read_description(bundle)
    map_before = before.figures.get("map")
    if map_before is None:
        raise UserError(f"bundle {str(bundle)!r} has no mAP to compare with")
    fingerprint, seed = (_needed(bundle, before, key) for key in ("data_fingerprint", "seed"))
    layout, spec = training_request(str(bundle), _flags(before, data) | {"search.seed": seed})
    with TemporaryDirectory() as scratch, num_threads(_threads(before)):
        again, _ = train_bundle(
            layout,
            spec,
            out or Path(scratch) / "bundle",
            callback,
            onnx=onnx and bool(out),
            fingerprint=None if other_data else fingerprint,
        )
    differing = differences(before.origin, again.origin)
    if tolerance is None:
        exact = not differing and again.origin["hardware"]["device"] == "cpu"
        tolerance = 0.0 if exact else RETRAINED_MAP_TOLERANCE
    return Reproduction(layout, map_before, again.figures["map"] or 0.0, differing, tolerance)


def _flags(before: Trained, data: str) -> dict[str, Any]:
    """Keys of a request that a bundle does not take over by itself: the parts of its data set."""
    parts = before.request.get("data", {}).items()
    return {
        **{f"data.{key}": value for key, value in parts if key != "root"},
        "data.root": data,
    }


def _needed(bundle: Path, before: Trained, key: str) -> Any:
    if before.origin.get(key) is None:
        raise BundleError(
            f"bundle {str(bundle)!r} cannot be trained again: detector.yaml has no origin.{key}"
        )
    return before.origin[key]


def _threads(before: Trained) -> int | None:
    threads: int | None = before.origin.get("hardware", {}).get("threads")
    return threads


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name versions and hardware that two origins do not share, as `torch was 2.13.0, is 2.14.1`.

    Args:
        before, now: see `nas.export.description.make_origin`. Optuna and Ray, which train nothing,
            do not count.
    """
    lines = []
    for section in ("versions", "hardware"):
        old, new = before.get(section, {}), now[section]
        names = sorted({*old, *new} - {"ray", "optuna"})
        lines += [
            f"{name} was {old.get(name, 'not recorded')}, is {new.get(name)}"
            for name in names
            if old.get(name) != new.get(name)
        ]
    return lines
