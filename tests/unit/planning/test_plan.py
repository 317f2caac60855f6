"""The rules of the plan, against values worked out by hand, and what they leave alone."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from helpers.splits import Object, split_of
from PIL import Image

from nas.config.sections import DetectorSpec
from nas.config.spec import load_spec
from nas.planning.adaptation import adapt_to_data
from nas.planning.fingerprint import Fingerprint, fingerprint_of
from nas.planning.plan import BY_HAND, make_plan
from nas.planning.rules import Situation
from search_spaces.layout import Layout

CELLS = Fingerprint(
    images=205,
    boxes=2800,
    short_sides=(480.0,) * 5,
    long_sides=(640.0,) * 5,
    gray=0.0,
    object_sides=(40.0, 93.0, 102.0, 111.0, 164.0),
    object_shares=(0.083, 0.194, 0.212, 0.231, 0.342),
    small_share=0.08,
    aspect_ratios=(0.7, 0.9, 1.0, 1.1, 1.3),
    objects_per_image=(6.0, 11.0, 14.0, 16.0, 20.0),
    most_objects=28,
    class_boxes={"red": 2400, "white": 200, "platelet": 200},
    class_images={"red": 200, "white": 190, "platelet": 120},
)


def decided(data: Fingerprint, detector: str = "fcos", width: int = 16, device: str = "cpu"):
    situation = Situation(data, DetectorSpec(name=detector), width, device)
    return {d.key.removeprefix("recipe."): d.value for d in make_plan(situation, {}).decisions}


def test_blood_cells_by_hand():
    found = decided(CELLS)
    assert found["image_size"] == 256  # 2.5 cells x 8 pixels / 0.08 = 250
    assert found["batch"] == 4  # 8 x 40 > 205 >= 4 x 40
    assert found["epochs"] == 20  # 52 steps each; 1000 / 52 = 19.2
    assert found["lr"] == pytest.approx(3e-3)
    assert found["ema"] == pytest.approx(1 - 1 / (0.05 * 20 * 52), abs=1e-4)


def test_a_finer_pyramid_needs_smaller_images():
    assert decided(CELLS, "faster_rcnn")["image_size"] == 128  # 2.5 x 4 / 0.08 = 125
    assert decided(CELLS, "sparse_rcnn")["image_size"] == 128


def test_a_gpu_has_the_time_for_twice_the_cells():
    assert decided(CELLS, device="cuda")["image_size"] == 480  # 500, their own size is 480
    assert decided(CELLS, "faster_rcnn", device="cuda")["image_size"] == 256  # 5 x 4 / 0.08


def test_anchors_are_as_large_as_the_objects():
    # At 128 pixels they have 10.6, 24.8, 27.1, 29.6 and 43.8. An anchor of 8 overlaps with 10.6 by
    # 0.57; of 16 by 0.44; those of 32 with the others by 0.53 at least.
    assert decided(CELLS, "faster_rcnn")["detector.object_scale"] == 0.25
    # ATSS at 256: 21, 50, 54, 59, 88. From 64 on anchors miss the first (0.11), from 32 too (0.44).
    assert decided(CELLS, "atss")["detector.object_scale"] == 0.25
    large = dataclasses.replace(CELLS, small_share=0.5, object_shares=(0.3, 0.4, 0.5, 0.6, 0.9))
    assert decided(large, "faster_rcnn")["detector.object_scale"] == 1.0  # 38 to 115 of 128 pixels


@pytest.mark.parametrize(("objects", "found"), [(28, 100), (100, 100), (101, 200), (300, 500)])
def test_crowded_images_have_more_detections(objects: int, found: int):
    crowded = dataclasses.replace(CELLS, most_objects=objects)
    assert decided(crowded)["detector.detections_per_image"] == found
    assert decided(dataclasses.replace(CELLS, most_objects=5000))[
        "detector.detections_per_image"
    ] == (1000)


def test_ranges_stay_as_published():
    for detector in ("fcos", "reppoints_v2", "sparse_rcnn"):
        assert decided(CELLS, detector)["detector.object_scale"] == 1.0


def test_of_many_rare_classes_the_rarest_are_named():
    rare = {f"class {number}": number for number in range(9)}
    situation = Situation(
        dataclasses.replace(CELLS, class_boxes=rare), DetectorSpec(name="fcos"), 16, "cpu"
    )
    (warning,) = make_plan(situation, {}).warnings
    assert warning.endswith(
        "boxes: class 0 (0), class 1 (1), class 2 (2), class 3 (3), class 4 (4) and 4 more"
    )


def test_images_are_not_enlarged_and_a_cpu_has_its_limit():
    tiny_objects = dataclasses.replace(CELLS, small_share=0.01)  # 2000 pixels would be wanted
    assert decided(tiny_objects)["image_size"] == 320
    assert decided(tiny_objects, device="cuda")["image_size"] == 480  # their own size
    large = dataclasses.replace(tiny_objects, short_sides=(3000.0,) * 5)
    assert decided(large, device="cuda")["image_size"] == 800


@pytest.mark.parametrize(
    ("images", "batch", "epochs"), [(20, 4, 200), (100, 4, 40), (320, 8, 25), (50_000, 16, 8)]
)
def test_batch_and_epochs_by_the_number_of_images(images: int, batch: int, epochs: int):
    found = decided(dataclasses.replace(CELLS, images=images))
    assert (found["batch"], found["epochs"]) == (batch, epochs)
    assert found["epochs"] * math.ceil(images / batch) >= 1000


@pytest.mark.parametrize(
    ("width", "budget_gib", "processes", "short_side", "found"),
    [
        (96, 16, 1, 800, 2),  # 16 / 5.5 = 2.9
        (96, 48, 1, 800, 8),  # 8.7
        (96, 16, 1, 400, 8),  # a quarter of the pixels: 11.6
        (16, 16, 1, 800, 16),  # a sixth of the channels: 17.5
        (96, 2, 1, 800, 1),
        (96, 80, 8, 800, 2),  # 16 images on eight GPUs
    ],
)
def test_images_of_a_gpu_by_the_budget(
    width: int, budget_gib: int, processes: int, short_side: int, found: int
):
    sides = (float(short_side),) * 5
    data = dataclasses.replace(CELLS, images=50_000, small_share=0.001, short_sides=sides)
    detector = DetectorSpec(name="faster_rcnn")
    situation = Situation(data, detector, width, "cuda", budget_gib * 2**30, processes)
    plan = make_plan(situation, {})
    assert plan.value("recipe.images_per_gpu") == found
    assert plan.value("space.layout.norm") == ("gn" if found < 4 else "bn")
    assert not any("few for the batch norms" in said for said in plan.warnings)
    asked = make_plan(situation, {"space.layout.norm": "bn"})
    assert any("few for the batch norms" in said for said in asked.warnings) is (found < 4)


def test_without_a_gpu_a_batch_is_one_piece():
    assert decided(CELLS)["images_per_gpu"] is None


def test_the_rate_falls_with_width():
    assert decided(CELLS, width=96)["lr"] == pytest.approx(5e-4)
    assert decided(CELLS, width=24)["lr"] == pytest.approx(2e-3)


def test_what_is_set_by_hand_counts_and_later_rules_see_it():
    situation = Situation(CELLS, DetectorSpec(name="fcos"), 16, "cpu")
    plan = make_plan(situation, {"recipe.batch": 8})
    by_key = {decision.key: decision for decision in plan.decisions}
    assert (by_key["recipe.batch"].value, by_key["recipe.batch"].reason) == (8, BY_HAND)
    assert by_key["recipe.epochs"].value == 39  # 26 steps an epoch
    assert "recipe.batch" not in plan.values()


def test_a_notebook_shows_every_decision_with_its_reason():
    plan = make_plan(Situation(CELLS, DetectorSpec(name="fcos"), 16, "cpu"), {"recipe.batch": 8})
    shown = plan._repr_html_()
    assert shown.count("<tr>") == 1 + len(plan.decisions)
    assert f"<td>recipe.batch</td><td>8</td><td>{BY_HAND}</td>" in shown
    assert "205 training images, 2800 objects" in shown


def test_warnings_name_what_no_rule_mends():
    poor = dataclasses.replace(
        CELLS,
        images=20,
        small_share=0.01,
        most_objects=300,
        class_boxes={"red": 2400, "white": 3},
    )
    situation = Situation(poor, DetectorSpec(name="fcos"), 16, "cpu")
    said = " | ".join(make_plan(situation, {"recipe.epochs": 2}).warnings)
    for part in (
        "20 training images",
        "white (3)",
        "span 3 pixels",
        "up to 300 objects",
        "10 steps of training are few",
    ):
        assert part in said, part
    assert make_plan(Situation(CELLS, DetectorSpec(name="fcos"), 16, "cpu"), {}).warnings == ()


def test_the_fingerprint_of_a_made_split(tmp_path: Path):
    for number, mode, size in ((1, "L", (100, 80)), (2, "RGB", (60, 120))):
        Image.new(mode, size).save(tmp_path / f"{number}.png")
    boxes = [(1, (0, 0, 20, 20), 1), (1, (0, 0, 40, 10), 2), (2, (5, 5, 30, 30), 1)]
    objects = [Object(*box) for box in boxes]
    split = split_of(tmp_path, [(100, 80), (60, 120)], objects, "xyz")
    found = fingerprint_of(split)
    assert (found.images, found.boxes, found.most_objects, found.gray) == (2, 3, 2, 0.5)
    assert found.object_sides[2] == 20  # of 20, 20 and 30
    assert found.object_shares[2] == pytest.approx(0.25)  # of 20/80, 20/80 and 30/60
    assert found.class_boxes == {"x": 2, "y": 1, "z": 0}
    assert found.class_images == {"x": 2, "y": 1, "z": 0}


def test_a_request_leaves_to_the_data_what_it_does_not_say(digits: Path):
    asked = load_spec(None, {"data.root": str(digits), "recipe.batch": 4, "space": "auto"})
    assert asked.recipe.name == "auto"
    assert "recipe.batch" not in asked.plan
    spec, _, facts = adapt_to_data(asked)
    assert spec.recipe.batch == 4
    assert all(spec.plan.values())
    steps = spec.recipe.epochs * math.ceil(facts.train_images / 4)
    assert steps >= 1000
    assert facts.batch_shape[0] == 4
    again, _, same = adapt_to_data(spec)
    assert (again, same) == (spec, facts)


def test_few_images_at_once_have_group_norm(digits: Path):
    """Not over a norm that the space names; layouts that are tried first are of the space."""
    keys = {"data.root": str(digits), "recipe.batch": 2, "recipe.name": "auto"}
    asked = load_spec({"search": {"try": ["C1-C1-T2-T1@16"]}}, {**keys, "space": "tiny"})
    spec = adapt_to_data(asked).spec
    assert spec.search_space().layout_defaults == {"norm": "gn"}
    assert spec.search.try_first == ("C1-C1-T2-T1@16+norm=gn",)
    assert spec.plan["space.layout.norm"] == "2 images at once; group norm below 4"
    spec.search_space().encode(Layout.parse(spec.search.try_first[0]))

    own = {**asked.space, "layout": {"norm": "syncbn"}}
    space = adapt_to_data(load_spec({"space": own}, keys)).spec.search_space()
    assert space.layout_defaults == {"norm": "syncbn"}

    four = adapt_to_data(load_spec(None, {**keys, "space": "tiny", "recipe.batch": 4})).spec
    assert four.search_space().layout_defaults == {}


def test_epochs_by_hand_are_not_lengthened(digits: Path):
    for recipe in ("auto", "proxy"):
        keys = {"data.root": str(digits), "recipe.name": recipe, "recipe.epochs": 2}
        assert adapt_to_data(load_spec(None, keys)).spec.recipe.epochs == 2


def test_the_least_steps_of_a_recipe_are_epochs():
    recipe = load_spec({"data": "x", "recipe": "proxy"}, {}).recipe
    longer = recipe.with_least_steps(205)
    assert longer.epochs == 77  # 13 steps each
    assert longer.model_copy(update={"epochs": 12}).with_least_steps(205).epochs == 12  # by hand
    assert recipe.with_least_steps(118_000).epochs == 8
