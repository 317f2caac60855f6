"""What `import nas` gives: every function here is one of its names.

Nothing is printed. What happens while something runs is told to callbacks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from nas.api.requests import checked_spec, training_request
from nas.data.split_source import GUESSED, Places, split_names
from nas.utils.paths import localize
from nas.utils.progress import CountProgress

if TYPE_CHECKING:
    from nas.api.bundle import Bundle
    from nas.api.callbacks import TrainingCallback
    from nas.api.evaluation import BundleScore
    from nas.api.profiling import LayoutProfile
    from nas.api.study import Study
    from nas.data.validation import CheckedSplit
    from nas.evaluation.detections import ImageDetections
    from nas.planning.plan import Plan
    from nas.search.callbacks import SearchCallback

Settings = Mapping[str, Any]
STORAGE = "sqlite:///nas.db"
KEYS = {
    "detector": "detector.name",
    "recipe": "recipe.name",
    "study": "study",
    "space": "space",
    "trials": "search.trials",
    "budget": "budget.memory",
    "time_limit": "search.time_limit",
}


class TrainingKeys(TypedDict, total=False):
    """Keys of a training that have a name of their own.

    Attributes:
        detector: `faster_rcnn`, `fcos` or another of `nas-submit --help`; default: the former on a
            GPU, the latter without.
        recipe: how it is trained: a name or a YAML file; default: the data decide.
    """

    detector: str
    recipe: str


class SearchKeys(TrainingKeys, total=False):
    """Keys of a search that have a name of their own, besides those of `TrainingKeys`.

    Attributes:
        study: its name; default: that of the data's folder.
        space: what layouts are searched: a name (`paper`, `tiny`), a YAML file, or its content.
        trials: candidates to train altogether.
        budget: peak memory of a training, `16GiB`.
        time_limit: wall time of the search and of the full training of its winner, `8h`.
    """

    study: str
    space: str | Mapping[str, Any]
    trials: int
    budget: str
    time_limit: str


def search(
    data: str | Path,
    *,
    storage: str = STORAGE,
    local: bool = False,
    settings: Settings | None = None,
    callbacks: Sequence[SearchCallback] = (),
    **keys: Unpack[SearchKeys],
) -> Study:
    """Search for the best backbone that trains within a budget. The same call goes on where a
    search stopped.

    Examples:
        >>> study = nas.search("digits", space="tiny", detector="fcos", trials=6)  # doctest: +SKIP

    Args:
        data: folder or zip file of a data set, or its URL.
        storage: URL of the database.
        local: train one candidate after the other in this process, without Ray.
        settings: any other key of a request, `{"recipe.lr": 0.001}` (docs/reference.md).
        callbacks: told what happens.
        keys: study, space, detector, recipe, trials, budget and time_limit, see `SearchKeys`.

    Returns:
        The study, with its leaderboard and, with a time limit, the bundle of its winner.

    Raises:
        UserError: what was asked for cannot be done; nothing has been trained.
        StudyError: the search stopped before its end, and says why; the same call continues.
    """
    began_at = time.time()
    spec = checked_spec(None, _flags(data, keys, settings) | {"storage": storage}, allow_code=True)
    from nas.api.finishing import search_and_finish
    from nas.api.study import Study

    search_and_finish(spec, callbacks, local=local, began_at=began_at)
    return Study(spec.storage, spec.study)


def train(
    layout: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    settings: Settings | None = None,
    onnx: bool = True,
    callback: TrainingCallback | None = None,
    **keys: Unpack[TrainingKeys],
) -> Bundle:
    """Train one candidate and write it as a bundle. The same call goes on where it stopped.

    Examples:
        >>> nas.train("C1-C1-T2-T1@16", "digits", "trained", detector="fcos")  # doctest: +SKIP

    Args:
        layout: a layout, the folder of a bundle, or a YAML file with a layout.
        data: folder or zip file of a data set, or its URL.
        out: folder of the bundle.
        settings: any other key of a request, `{"recipe.epochs": 24}` (docs/reference.md).
        onnx: write the ONNX files too, where their packages are installed.
        callback: told what happens.
        keys: detector and recipe, see `TrainingKeys`.

    Returns:
        The bundle.

    Raises:
        UserError: what was asked for cannot be done.
        CandidateError: the training diverged or does not fit into memory.
    """
    parsed, spec = training_request(str(layout), _flags(data, keys, settings))
    from nas.api.bundle import Bundle
    from nas.api.callbacks import TrainingCallback
    from nas.api.training import train_bundle

    train_bundle(parsed, spec, Path(out), callback or TrainingCallback(), onnx=onnx)
    return Bundle(out)


def load(bundle: str | Path) -> Bundle:
    """Open a bundle.

    Examples:
        >>> nas.load("best").predict(["digits/val/00001.jpg"])  # doctest: +SKIP

    Args:
        bundle: its folder, as `export`, `train` or `nas-export` wrote it.

    Returns:
        The bundle, whose weights are read when it first predicts.

    Raises:
        UserError: there is none, or it is damaged.
    """
    from nas.api.bundle import Bundle

    return Bundle(bundle)


def load_study(storage: str = STORAGE, name: str | None = None) -> Study:
    """Open a study, to read.

    Examples:
        >>> nas.load_study("sqlite:///nas.db", "digits").leaderboard()  # doctest: +SKIP

    Args:
        storage: URL of its database.
        name: of the study; None for the only one that there is.

    Returns:
        The study as the database has it whenever it is asked.

    Raises:
        StudyError: there is no such study.
    """
    from nas.api.study import Study

    return Study(storage, name)


def export(study: Study, out: str | Path, trial: int | None = None, *, onnx: bool = True) -> Bundle:
    """Write a candidate of a study as a bundle.

    Examples:
        >>> nas.export(nas.load_study(name="digits"), "best")  # doctest: +SKIP

    Args:
        study: that has trained it.
        out: a new or empty folder, or that of an older bundle, which is replaced.
        trial: its number; None for the best.
        onnx: write the ONNX files too, where their packages are installed.

    Returns:
        The bundle.

    Raises:
        StudyError: the trial did not complete.
        BundleError: its weights are gone, or the folder has other files.
    """
    return study.export(out, trial, onnx=onnx)


def evaluate(bundle: str | Path, data: str | Path, split: str = "val") -> BundleScore:
    """Score a bundle's detector.

    Examples:
        >>> score = nas.evaluate("best", "digits")  # doctest: +SKIP
        >>> score.metrics.map, score.confusion().counts, score.errors().types  # doctest: +SKIP

    Args:
        bundle: its folder.
        data: folder or zip file of a data set with its categories, or its URL.
        split: name of the split.

    Returns:
        COCO's metrics, as fractions 0 to 1, images a second, and the detections; `confusion`,
        `errors` and `write` make more of these.

    Raises:
        UserError: the bundle or the data cannot be used.
    """
    return load(bundle).evaluate(data, split)


def predict(
    bundle: str | Path,
    images: Sequence[Any],
    *,
    score: float = 0.3,
    tile: int | None = None,
    onnx: bool = False,
) -> list[ImageDetections]:
    """Find objects in images; for many calls `nas.load(bundle).predict` reads the bundle once.

    Examples:
        >>> nas.predict("best", ["digits/val/00001.jpg"])[0].names  # doctest: +SKIP

    Args:
        bundle: its folder.
        images: paths, images of Pillow, or arrays [H, W, 3] of uint8.
        score: what has a lower one is left out, 0 to 1.
        tile: cut larger images into tiles of so many pixels.
        onnx: run the bundle's ONNX file.

    Returns:
        What was found in each image, in their order, the surest first; boxes in its own pixels.

    Raises:
        UserError: the bundle cannot be used.
        BrokenImage: a file cannot be decoded.
    """
    from nas.api.prediction import Predictor

    found = Predictor(bundle, onnx=onnx, tile=tile)(images)
    return [each.above(score) for each in found]


def profile(
    layout: str,
    *,
    detector: str = "faster_rcnn",
    classes: int = 80,
    image_size: int = 800,
    images: int = 4,
    settings: Settings | None = None,
) -> LayoutProfile:
    """Count and predict what a layout costs; where there is a GPU, measure as well.

    Examples:
        >>> nas.profile("C2-C2-T12-T4", images=1, image_size=224).params > 40e6
        True

    Args:
        layout: the backbone.
        detector: what is around it.
        classes: categories, the background not counted.
        image_size: short side of the images, pixels; the long side is 1333/800 of it.
        images: of one step.
        settings: other keys of the detector, `{"channels": 64}`.

    Returns:
        Parameters, multiply-adds, and GiB of a training step, altogether and by part.

    Raises:
        UserError: there is no such layout or detector.
    """
    from nas.api.profiling import profile_layout, profiled_training
    from nas.config.parsing import parse_model
    from nas.config.sections import DetectorSpec
    from search_spaces.layout import Layout

    spec = parse_model(DetectorSpec, {"name": detector, **(settings or {})})
    training = profiled_training(images, image_size)
    return profile_layout(Layout.parse(layout), spec, classes, training)


def plan(
    data: str | Path, *, settings: Settings | None = None, **keys: Unpack[TrainingKeys]
) -> Plan:
    """Find what a data set decides of its own training, and why; nothing is trained.

    Examples:
        >>> nas.plan("digits").value("recipe.batch")  # doctest: +SKIP

    Args:
        data: folder or zip file of a data set, or its URL.
        settings: keys of a request that are set by hand, `{"recipe.batch": 16}`.
        keys: detector and recipe, see `TrainingKeys`.

    Returns:
        Every decision with its reason, the figures that it follows from, and warnings.

    Raises:
        DataError: the data set cannot be read, or has faults that cannot be repaired.
    """
    spec = checked_spec(None, _flags(data, keys, settings), allow_code=True)
    from nas.api.planning import plan_request

    return plan_request(spec, lambda *_: None)


def check_data(
    data: str | Path,
    splits: Sequence[str] | None = None,
    *,
    places: Places = GUESSED,
    on_image: CountProgress | None = None,
) -> list[CheckedSplit]:
    """Look into every image and every box of a data set.

    Examples:
        >>> [split.lost for split in nas.check_data("digits")]  # doctest: +SKIP

    Args:
        data: folder or zip file of a data set, or its URL.
        splits: their names; None for all there are.
        places: where files are that would not be found.
        on_image: told of every image that is checked.

    Returns:
        Of each split its images and boxes, and what was found: `problems`, of which `lost` could
        not be repaired.

    Raises:
        DataError: a folder or file that cannot be read at all.
    """
    from nas.data.validation import check_splits

    root = localize(str(data))
    return check_splits(root, splits or split_names(root, places), on_image, places)


def _flags(data: str | Path, keys: Mapping[str, Any], settings: Settings | None) -> dict[str, Any]:
    """Values by dotted key of a request.

    Raises:
        TypeError: a key without a name of its own, as for any function.
    """
    if unknown := sorted(set(keys) - set(KEYS)):
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}; settings takes other keys")
    named = {KEYS[name]: value for name, value in keys.items()}
    return {"data.root": str(data), **named, **(settings or {})}
