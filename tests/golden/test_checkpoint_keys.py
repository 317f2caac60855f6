"""Names of runs inside their checkpoints, written down from release 0.1.0: a run that it began must
go on with every later one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from nas.config.identity import Since, identity
from nas.config.parsing import ConfigModel
from nas.config.pretraining import PretrainingRecipe
from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.training.candidate import Candidate
from nas.training.pretraining import Pretraining
from search_spaces.layout import Layout

LAYOUT = Layout.parse("C1-C1-T2-T1@16")
SHORT = Recipe(epochs=2, image_size=64, batch=8, lr=1e-3)
LONG = Recipe(
    name="proxy",
    epochs=12,
    image_size=320,
    max_size=512,
    train_sizes=(256, 320),
    batch=16,
    images_per_gpu=4,
    lr=2e-4,
    schedule="saturate",
    patience=3,
    clip_norm=0.1,
    precision="bf16",
    checkpointing="light",
    flip=0.0,
    loader_workers=2,
    weights="w.pt",
    channels_last=True,
)
GRADIENTS = CalibrationSpec(definition="paper")  # the default of that release
MASKLESS = DetectorSpec(name="cascade_mask_rcnn", masks=False, hidden=64)
CANDIDATES = [
    (DetectorSpec(name="fcos"), SHORT, GRADIENTS, 3, 0, "b32d6cf6725d"),
    (DetectorSpec(name="faster_rcnn"), SHORT, GRADIENTS, 3, 0, "7f8a833139d7"),
    (DetectorSpec(name="reppoints_v2"), SHORT, GRADIENTS, 3, 0, "1cc481f9af5d"),
    (
        MASKLESS,
        LONG,
        CalibrationSpec(definition="paper", passes=3, alpha=0.5),
        80,
        7,
        "a6af9b809b93",
    ),
]
SMALL = PretrainingRecipe(epochs=3, image_size=32, batch=16, lr=1e-3)
SWIN = PretrainingRecipe(
    name="swin",
    epochs=30,
    image_size=64,
    batch=16,
    lr=1e-3,
    warmup_fraction=0.1,
    label_smoothing=0.2,
    augment="strong",
    compile=True,
)
# The keys of release 0.1.0, which all count, in the order in which they are hashed.
DETECTOR = "name roi_op neck channels hidden regions masks box_transform proposals"
RECIPE = (
    "name epochs image_size max_size train_sizes batch images_per_gpu lr weight_decay optimizer "
    "schedule decay_epochs decay_factor patience min_gain decays warmup_steps clip_norm precision "
    "checkpointing channels_last compile flip loader_workers weights"
)
SECTIONS = {
    DetectorSpec(): DETECTOR,
    SHORT: RECIPE,
    CalibrationSpec(): "enabled definition alpha passes scope",
    SMALL: f"{RECIPE} warmup_fraction label_smoothing augment",
}


@pytest.mark.parametrize(
    ("detector", "recipe", "calibration", "classes", "seed", "key"), CANDIDATES
)
def test_a_candidate_has_the_key_that_it_had(
    detector: DetectorSpec,
    recipe: Recipe,
    calibration: CalibrationSpec,
    classes: int,
    seed: int,
    key: str,
):
    made = Candidate(LAYOUT, detector, recipe, calibration, classes, seed, Path("x"))
    assert made.key == f"C1-C1-T2-T1@16 {key}"


@pytest.mark.parametrize(("recipe", "key"), [(SMALL, "cca3a597f43f"), (SWIN, "7652382fa4f8")])
def test_a_pretraining_has_the_key_that_it_had(recipe: PretrainingRecipe, key: str):
    made = Pretraining(LAYOUT, recipe, ("ant", "bee"), "abc123", 1, Path("o"), Path("f"))
    assert made.key == f"C1-C1-T2-T1@16 {key}"


@pytest.mark.parametrize("section", SECTIONS)
def test_keys_that_came_later_are_marked(section: ConfigModel):
    kind, counted = type(section).__name__, list(identity(section))
    for name in counted:
        assert name in SECTIONS[section].split(), (
            f"{kind}.{name} is new: running trials of older studies would not find their "
            f'checkpoints. Mark it: {name}: Annotated[..., Since("<this release>")] = '
            "<what releases without it did>"
        )
    assert counted == SECTIONS[section].split(), f"the keys of {kind} are hashed in this order"


class LaterRecipe(Recipe):
    mixup: Annotated[float, Field(ge=0, lt=1), Since("0.2.0")] = 0.0
    views: Annotated[tuple[int, ...], Since("0.3.0")] = Field(default_factory=tuple)


def test_a_later_key_counts_where_it_differs_from_its_default():
    def key(**changes: Any) -> str:
        recipe = LaterRecipe.model_validate({**SHORT.model_dump(), **changes})
        return Candidate(LAYOUT, DetectorSpec(name="fcos"), recipe, GRADIENTS, 3, 0, Path("x")).key

    assert key() == key(mixup=0.0, views=()) == "C1-C1-T2-T1@16 b32d6cf6725d"
    assert len({key(), key(mixup=0.9), key(views=(1,)), key(mixup=0.9, views=(1,))}) == 4


LATER_OF_DETECTORS = {
    "object_scale": 0.5,
    "detections_per_image": 300,
    "score_threshold": 0.05,
    "nms_iou": 0.6,
}
LATER = {
    "augmentation": "standard",
    "vertical_flip": 0.5,
    "drop_path": 0.1,
    "init": "swin",
    "warmup_share": 0.5,
    "least_steps": 10,
    "keep": "best",
    "ema": 0.9,
    "quarter_turns": 0.5,
    "repeat_threshold": 0.1,
    "eval_every": 2,
    "iou_crop": 0.5,
    "frozen_stages": 1,
    "norm_eval": True,
    "tf32": True,
}
NEEDS = {"frozen_stages", "norm_eval"}  # weights


def test_every_key_since_then_counts_where_it_is_used():
    counted = RECIPE.split()
    assert [name for name in Recipe.model_fields if name not in counted] == list(LATER)
    keys = {CANDIDATES[0][-1]}
    for name, value in LATER.items():
        weights = "w.pt" if name in NEEDS else None
        recipe = Recipe.model_validate({**SHORT.model_dump(), "weights": weights, name: value})
        made = Candidate(LAYOUT, DetectorSpec(name="fcos"), recipe, GRADIENTS, 3, 0, Path("x"))
        keys.add(made.key.split()[1])
        assert list(identity(recipe)) == [*counted, name]
    assert len(keys) == 1 + len(LATER)


def test_statistics_of_the_inputs_count_where_they_are_the_datas():
    assert "inputs" not in identity(GRADIENTS)
    assert identity(CalibrationSpec(inputs="data"))["inputs"] == "data"


def test_every_key_of_detectors_since_then_counts_where_it_is_used():
    counted = DETECTOR.split()
    assert [name for name in DetectorSpec.model_fields if name not in counted] == list(
        LATER_OF_DETECTORS
    )
    keys = {CANDIDATES[0][-1]}
    for name, value in LATER_OF_DETECTORS.items():
        detector = DetectorSpec.model_validate({"name": "fcos", name: value})
        made = Candidate(LAYOUT, detector, SHORT, GRADIENTS, 3, 0, Path("x"))
        keys.add(made.key.split()[1])
        assert list(identity(detector)) == [*counted, name]
    assert len(keys) == 1 + len(LATER_OF_DETECTORS)
