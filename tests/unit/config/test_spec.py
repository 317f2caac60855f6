"""A request becomes complete and frozen, from the right places, or is refused by key, rule and
value.
"""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import pytest

import nas
from nas.config.choices import recipe_names
from nas.config.parsing import parse_model
from nas.config.recipe import Recipe, load_recipe, recipe_calibration
from nas.config.spec import SearchSpec, load_spec
from nas.errors import LayoutError, SpaceError, SpecError

RECIPE_FILES = sorted((Path(nas.__file__).parent / "config" / "recipes").glob("*.yaml"))
BASE = {"data.root": "somewhere/cells", "space": "tiny"}


@pytest.mark.parametrize(
    ("gpu", "flags", "space", "detector", "channels"),
    [
        (True, {}, "paper", "faster_rcnn", 256),
        (False, {}, "tiny", "fcos", 64),
        (False, {"detector.name": "auto"}, "tiny", "fcos", 64),
        (False, {"run.cluster": "http://head:8265"}, "paper", "faster_rcnn", 256),
    ],
)
def test_defaults_are_those_of_the_design(
    monkeypatch: pytest.MonkeyPatch,
    gpu: bool,
    flags: dict[str, str],
    space: str,
    detector: str,
    channels: int,
):
    monkeypatch.setattr("nas.config.spec.has_gpu", lambda: gpu)
    spec = load_spec(None, {"data.root": "x", **flags})
    assert spec.storage == "sqlite:///nas.db"
    assert spec.space["name"] == space
    assert (spec.detector.name, spec.detector.roi_op, spec.detector.channels) == (
        detector,
        "align",
        channels,
    )
    assert "name" not in spec.space["defaults"].get("detector", {})
    assert spec.recipe.name == "auto"
    assert set(spec.plan) > {"recipe.epochs", "recipe.image_size", "recipe.lr"}
    assert (str(spec.budget.memory), spec.budget.mode) == ("16GiB", "cap")
    calibration = spec.calibration
    assert (calibration.enabled, calibration.definition, calibration.alpha, calibration.passes) == (
        True,
        "outputs",
        0.25,
        1,
    )
    assert (spec.search.trials, spec.search.sampler, spec.search.pruner, spec.search.seed) == (
        40,
        "multifidelity",
        "multifidelity",
        0,
    )
    assert (spec.run.output, spec.run.retries) == ("nas-runs", 2)


def test_flags_beat_the_file_beats_the_space_beats_the_recipe(tmp_path: Path):
    path = tmp_path / "request.yaml"
    path.write_text(
        "data: somewhere/cells\nspace: tiny\ndetector: fcos\nrecipe: {epochs: 3, lr: "
        "0.5}\nsearch: {trials: 9}\n"
    )
    spec = load_spec(path, {"recipe.epochs": 2})
    assert spec.recipe.epochs == 2  # flag
    assert (spec.recipe.lr, spec.search.trials, spec.detector.name) == (0.5, 9, "fcos")  # file
    assert (spec.recipe.name, spec.detector.channels) == ("tiny", 64)  # the space's defaults
    assert spec.recipe.batch == 4  # the recipe's file
    assert spec.recipe.flip == 0.5  # built in
    assert spec.study == "cells"


def test_plain_json_holds_everything():
    spec = load_spec(None, {**BASE, "search.try": ["C1-C1-T2-T1@16"]})
    assert SearchSpec.model_validate(spec.to_dict()) == spec
    assert spec.search_space().name == "tiny"


def test_shorthands_and_own_recipe(tmp_path: Path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("epochs: 1\nimage_size: 64\nbatch: 2\nlr: 0.1\n")
    spec = load_spec(None, {**BASE, "recipe": str(recipe), "budget": "2GiB", "detector": "fcos"})
    assert (spec.recipe.epochs, spec.recipe.name, spec.budget.memory) == (1, str(recipe), 2**31)


def test_the_shipped_recipes_are_those_that_can_be_named():
    assert recipe_names() == sorted(path.stem for path in RECIPE_FILES)


@pytest.mark.parametrize("path", RECIPE_FILES, ids=lambda path: path.stem)
def test_every_value_of_a_recipe_says_where_it_comes_from(path: Path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    for before, line in itertools.pairwise(lines):
        assert (
            line.startswith("#")
            or "  # " in line
            or (before.startswith("#") and before != lines[0])
        ), line


def test_every_key_of_a_recipe_is_explained():
    explained = re.findall(r"^ {8}(\w+(?:, \w+)*): ", Recipe.__doc__, flags=re.MULTILINE)
    assert ", ".join(explained).split(", ") == list(Recipe.model_fields)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_valid(name: str):
    recipe = parse_model(Recipe, load_recipe(name))
    assert recipe.name == name
    assert recipe.long_side == int(recipe.image_size * 1333 / 800)


def test_paper_recipe():
    recipe = parse_model(Recipe, load_recipe("paper-24"))
    assert (recipe.image_size, recipe.long_side, recipe.batch, recipe.micro_batch_size) == (
        800,
        1333,
        16,
        4,
    )
    assert (recipe.lr, recipe.weight_decay, recipe.epochs, recipe.decay_epochs) == (
        1e-4,
        0.05,
        24,
        (22,),
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"recipe.epohs": 3}, "a key of recipe must be one of .*did you mean 'epochs'"),
        ({"serch.trials": 3}, "a key of the spec must be one of .*did you mean 'search'"),
        ({"recipe.epochs": 0}, "recipe.epochs must be greater than or equal to 1; got 0"),
        (
            {"recipe.image_size": 31},
            "recipe.image_size must be greater than or equal to 32; got 31",
        ),
        (
            {"recipe.image_size": 10**6},
            "image_size must be less than or equal to 32768; got 1000000",
        ),
        (
            {"recipe.batch": 10**9},
            "recipe.batch must be less than or equal to 65536; got 1000000000",
        ),
        ({"recipe.lr": math.inf}, "recipe.lr must be a finite number; got inf"),
        ({"recipe.clip_norm": math.nan}, "recipe.clip_norm must be .* got nan"),
        ({"run.checkpoint_s": math.inf}, "run.checkpoint_s must be a finite number; got inf"),
        ({"calibration.alpha": math.nan}, "calibration.alpha must be .* got nan"),
        ({"recipe.images_per_gpu": 3}, "multiple of images_per_gpu; got 4 and 3"),
        ({"recipe.max_size": 100}, "max_size must be at least image_size; got 100 and 160"),
        ({"recipe": "papr-24"}, "did you mean 'paper-24'"),
        ({"recipe": "gone.yaml"}, "'gone.yaml' cannot be read"),
        (
            {"recipe.frozen_stages": 2},
            "recipe: frozen_stages must be 0 without weights, which its stages are to have; got 2",
        ),
        ({"recipe.norm_eval": True}, "recipe: norm_eval must be false without weights.*got true"),
        (
            {"recipe.weights": "w.pt", "recipe.frozen_stages": 5},
            "frozen_stages must be less than or equal to 4; got 5",
        ),
        ({"detector.name": "focs"}, "must be one of fcos, faster_rcnn, .*; got 'focs'"),
        ({"detector.channels": 40}, "multiple of 32; got 40"),
        ({"detector.nms_iou": 0}, "detector.nms_iou must be greater than 0; got 0"),
        ({"detector.score_threshold": 1}, "score_threshold must be less than 1; got 1"),
        ({"detector.detections_per_image": 0}, "detections_per_image must be greater .* got 0"),
        (
            {"detector.name": "sparse_rcnn", "detector.nms_iou": 0.5},
            "detector: nms_iou must be left out for sparse_rcnn, which has no non-maximum "
            r"suppression \(fcos, .* have it\); got 0.5",
        ),
        ({"search.sampler": "bayes"}, "must be one of gp, multifidelity, tpe, nsga2, random, grid"),
        ({"search.pruner": "halving"}, "must be one of none, multifidelity, median"),
        ({"search.trials": "many"}, "search.trials must be a valid integer"),
        ({"budget.memory": "16"}, "a number and a unit"),
        ({"budget.memory": 16}, "a number and a unit"),
        ({"budget.mode": "equal"}, "must be one of cap"),
        ({"budget.like": "C2"}, "4 stages"),
        ({"run.concurrent": 0}, "run.concurrent must be"),
        ({"run.gpus_per_trial": -1}, "run.gpus_per_trial must be"),
        *[
            ({"run.gpus_per_trial": number}, r"run.gpus_per_trial[.\w]* must be a finite number")
            for number in (math.inf, math.nan)
        ],
        ({"calibration.alpha": 2}, "less than or equal to 1; got 2"),
        ({"data.root": None}, "--data DIR"),
        ({"data.train_fraction": 0}, "greater than 0"),
        ({"study": "a/b"}, "without '/'"),
        ({"recipe.epochs.more": 1}, "'epochs' is a value, not a section|recipe.epochs must be"),
        ({"budget": 3}, "must be"),
        ({"data.root": 5}, "data.root must be a path or a URL, as text; got 5"),
        ({"data.root": "a\0b"}, "data.root must be a path or a URL, as text; got 'a"),
        ({"run.output": "\ud800"}, "run.output must be a path or a URL, as text; got '"),
    ],
)
def test_refusals(flags: dict, words: str):
    with pytest.raises((SpecError, LayoutError), match=words):
        load_spec(None, {**BASE, **flags})


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (
            "detector.name",
            "focs",
            "detector.name: detector must be one of fcos, faster_rcnn, cascade_mask_rcnn, atss, "
            "reppoints_v2, sparse_rcnn; got 'focs' (did you mean 'fcos'?)",
        ),
        (
            "budget.mode",
            "equalise",
            "budget.mode: budget.mode must be one of cap, equalize; got 'equalise' "
            "(did you mean 'equalize'?)",
        ),
        (
            "recipe.optimizer",
            ["adam"],
            "recipe.optimizer: optimizer must be one of adamw, sgd; got ['adam'] "
            "(did you mean 'adamw'?)",
        ),
        (
            "search.objectives",
            ["map", "speed"],
            "search.objectives.1: an objective must be one of map, memory, flops, params, fps, "
            "latency; got 'speed'",
        ),
        (
            "calibration.scope",
            None,
            "calibration.scope: scope must be one of backbone, detector; got None",
        ),
    ],
)
def test_a_wrong_name_is_told_every_choice(key: str, value: object, text: str):
    with pytest.raises(SpecError) as refused:
        load_spec(None, {**BASE, key: value})
    assert str(refused.value) == text


def test_layouts_to_try_must_be_in_the_space():
    with pytest.raises(SpaceError, match="not in space 'tiny'"):
        load_spec(None, {**BASE, "search.try": ["C2-C2-T12-T4"]})
    with pytest.raises(LayoutError):
        load_spec(None, {**BASE, "search.try": ["C2"]})
    with pytest.raises(SpecError, match="try_only needs layouts in try; got none"):
        load_spec(None, {**BASE, "search.try_only": True})


@pytest.mark.parametrize("content", ["- 1", "a: [", "\x00"])
def test_files_that_are_no_request(tmp_path: Path, content: str):
    path = tmp_path / "request.yaml"
    path.write_text(content)
    with pytest.raises(SpecError, match="request.yaml"):
        load_spec(path, {})


def test_the_share_of_the_warmup_limits_it():
    keys = {"epochs": 9, "image_size": 64, "batch": 10, "lr": 1, "warmup_steps": 500}
    assert Recipe(**keys, warmup_share=0.1).warmup(10) == 9
    assert Recipe(**keys, warmup_share=0.5).warmup(10) == 45
    assert Recipe(**keys).warmup(10) == 89  # a step is left
    assert Recipe(**{**keys, "warmup_steps": 5}, warmup_share=0.1).warmup(10) == 5
    assert Recipe(**keys, warmup_share=0.5).warmup_epochs(images=100) == 5
    for wrong in (0, 1.1):
        with pytest.raises(ValueError, match="warmup_share"):
            Recipe(**keys, warmup_share=wrong)


@pytest.mark.parametrize("name", recipe_names())
def test_the_papers_recipes_are_calibrated_as_the_paper_says(name: str):
    papers = name.startswith("paper")
    assert recipe_calibration(name) == ({"definition": "paper"} if papers else {})
    assert "calibration" not in load_recipe(name)
    spec = load_spec(None, {**BASE, "recipe": name})
    assert spec.calibration.definition == ("paper" if papers else "outputs")
    by_hand = load_spec(None, {**BASE, "recipe": name, "calibration.definition": "relative"})
    assert by_hand.calibration.definition == "relative"
    off = load_spec(None, {**BASE, "recipe": name, "calibration.enabled": False}).calibration
    assert (off.enabled, off.definition) == (False, spec.calibration.definition)


def test_a_recipe_file_may_say_how_it_is_calibrated(tmp_path: Path):
    path, keys = tmp_path / "mine.yaml", "epochs: 1\nimage_size: 64\nbatch: 2\nlr: 0.1\n"
    path.write_text(f"{keys}calibration: {{definition: relative, passes: 3}}\n")
    assert recipe_calibration(str(path)) == {"definition": "relative", "passes": 3}
    calibration = load_spec(None, {**BASE, "recipe": str(path)}).calibration
    assert (calibration.definition, calibration.passes) == ("relative", 3)
    path.write_text(f"{keys}calibration: paper\n")
    with pytest.raises(SpecError, match="calibration must be a section with keys of its own"):
        load_spec(None, {**BASE, "recipe": str(path)})
    path.write_text(f"{keys}calibration: {{definiton: paper}}\n")
    with pytest.raises(SpecError, match="did you mean 'definition'"):
        load_spec(None, {**BASE, "recipe": str(path)})
    assert recipe_calibration("custom") == {}


@pytest.mark.parametrize(
    ("steps", "images", "epochs"), [(0, 100, 0), (1, 100, 1), (25, 101, 3), (22, 101, 2)]
)
def test_warmup_in_epochs(steps: int, images: int, epochs: int):
    recipe = Recipe(epochs=9, image_size=64, batch=10, lr=1, warmup_steps=steps)
    assert recipe.warmup_epochs(images) == epochs


def test_epochs_that_are_scored():
    recipe = Recipe(epochs=8, image_size=64, batch=10, lr=1, eval_every=3)
    assert [epoch for epoch in range(1, 9) if recipe.scores(epoch)] == [3, 6, 8]
    for every in range(1, 12):
        seldom = recipe.model_copy(update={"eval_every": every})
        assert seldom.scored_epochs == sum(seldom.scores(epoch) for epoch in range(1, 9))


@pytest.mark.parametrize(
    ("warmup", "every", "epochs"), [(0, 1, 0), (2, 1, 2), (0, 3, 2), (2, 3, 2), (3, 3, 5)]
)
def test_no_candidate_is_judged_before_its_first_score_after_the_warmup(
    warmup: int, every: int, epochs: int
):
    keys = {"warmup_steps": 10 * warmup, "eval_every": every}
    recipe = Recipe(epochs=9, image_size=64, batch=10, lr=1, **keys)
    assert recipe.warmup_epochs(100) == warmup
    assert recipe.unjudged_epochs(100) == epochs
    assert recipe.scores(epochs + 1)


@pytest.mark.parametrize(
    ("flags", "sampler", "pruner"),
    [
        ({}, "multifidelity", "multifidelity"),
        ({"search.sampler": "tpe"}, "tpe", "none"),
        ({"search.pruner": "none"}, "multifidelity", "none"),
        ({"search.prune_at": "cost"}, "multifidelity", "none"),
        ({"search.objectives": ["map", "memory"]}, "gp", "none"),
        ({"search.objectives": ["map", "memory"], "search.sampler": "nsga2"}, "nsga2", "none"),
    ],
    ids=str,
)
def test_sampler_and_pruner_go_together(flags: dict, sampler: str, pruner: str):
    search = load_spec(None, {"data.root": "cells", **flags}).search
    assert (search.sampler, search.pruner) == (sampler, pruner)
