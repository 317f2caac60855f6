"""What a bundle says to mmdetection: parsed by mmengine, without mmdetection."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from nas.config.parsing import parse_model
from nas.config.recipe import Recipe, load_recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.export.description import Trained
from nas.export.mmdetection.card import mmdetection_section
from nas.export.mmdetection.config import mmdetection_config
from nas.export.mmdetection.modules import detector_module
from nas.export.mmdetection.overrides import RESIZE
from nas.export.mmdetection.training import schedule_sections
from nas.models.detectors import DETECTORS
from nas.models.detectors.transform import IMAGENET
from nas.training.lr_schedule import lr_at
from search_spaces.layout import Layout

CLASSES = ("ant", 'b"ee')
STEPS = 10  # of an epoch


def recipe_with(**keys: Any) -> Recipe:
    return parse_model(Recipe, {**load_recipe("tiny"), **keys})


def trained(detector: str, **keys: Any) -> Trained:
    layout, spec = Layout.parse("C1-C1-C1-C1@16"), DetectorSpec(name=detector, channels=32)
    return Trained(layout, spec, recipe_with(**keys), CalibrationSpec(), CLASSES, {}, {})


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_type_of_ours_that_a_configuration_names_is_in_a_module(detector: str):
    module, config = (
        detector_module(trained(detector)),
        mmdetection_config(trained(detector), IMAGENET),
    )
    classes = {node.name for node in ast.parse(module).body if isinstance(node, ast.ClassDef)}
    named = {word for word in config.replace("'", " ").split() if word.startswith("ScratchNas")}
    assert named - {"ScratchNasBackbone"} == classes
    assert ("load_from" in config) == ("load_from_bundle" in module) == (detector != "reppoints_v2")


def test_mmengine_reads_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = pytest.importorskip("mmengine.config").Config
    (tmp_path / "mmdet_config.py").write_text(mmdetection_config(trained("atss"), IMAGENET))
    monkeypatch.setenv("DATA_ROOT", "/zoo")
    read = config.fromfile(tmp_path / "mmdet_config.py", import_custom_modules=False)
    data = read.train_dataloader.dataset
    assert (data.data_root, data.ann_file) == ("/zoo/", "instances_train.json")
    assert tuple(data.metainfo.classes) == CLASSES
    assert read.test_dataloader == read.val_dataloader
    assert read.val_evaluator.ann_file == "/zoo/instances_val.json"
    assert read.load_from == f"{tmp_path}/detector.safetensors"


@pytest.mark.parametrize(
    "keys",
    [
        {"schedule": "constant", "warmup_steps": 7},
        {"schedule": "step", "decay_epochs": (1, 3), "warmup_steps": 0},
        {"schedule": "cosine", "warmup_steps": 0},
    ],
    ids=lambda keys: keys["schedule"],
)
def test_mmengine_makes_the_learning_rates_of_the_recipe(keys: dict[str, Any]):
    schedulers = pytest.importorskip("mmengine.optim.scheduler")
    recipe = recipe_with(epochs=4, optimizer="sgd", **keys)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.lr)
    made = []
    for written in schedule_sections(recipe)["param_scheduler"]:
        options = {key: value for key, value in written.items() if key != "type"}
        kind = getattr(schedulers, written["type"])
        if options.pop("convert_to_iter_based", False):
            made.append(kind.build_iter_from_epoch(optimizer, epoch_length=STEPS, **options))
        else:
            made.append(kind(optimizer, **options))
    found = []
    for step in range(recipe.epochs * STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for each in made:
            if not each.by_epoch or (step + 1) % STEPS == 0:
                each.step()
    assert found == pytest.approx([lr_at(step, STEPS, recipe) for step in range(len(found))])


class Registry:
    """What stands in for mmdetection's registries."""

    def register_module(self) -> Any:
        return lambda kind: kind


def test_images_are_resized_to_the_pixels_of_nas_predict():
    scope: dict[str, Any] = {"np": np, "torch": torch, "Resize": object, "TRANSFORMS": Registry()}
    scope |= {"interpolate": torch.nn.functional.interpolate, "rescale_size": lambda *_: (71, 48)}
    exec(RESIZE.code, scope)
    image = np.random.default_rng(0).integers(0, 256, (130, 190, 3), dtype=np.uint8)
    results = {"img": image[:, :, ::-1], "scale": (100, 48)}
    scope["ScratchNasResize"]()._resize_img(results)
    expected = F.resize_image(torch.from_numpy(image).permute(2, 0, 1), [48, 71], antialias=True)
    assert np.array_equal(results["img"][:, :, ::-1], expected.permute(1, 2, 0).numpy())
    assert results["img_shape"] == (48, 71)
    assert results["scale_factor"] == (71 / 190, 48 / 130)


def test_what_is_not_translated_is_named():
    odd = trained("fcos", augmentation="standard", ema=0.99, schedule="saturate")
    for text in (mmdetection_config(odd, IMAGENET), mmdetection_section(odd)):
        for said in ("augmentation: standard", "ema: 0.99", "schedule: saturate"):
            assert said in text
    assert "does not have" not in mmdetection_section(trained("fcos"))
    pooled = trained("faster_rcnn")
    pooled = replace(pooled, detector=DetectorSpec(name="faster_rcnn", roi_op="pool"))
    assert "RoIPool has not been run there" in mmdetection_section(pooled)
    assert "has no reppoints_v2" in mmdetection_section(trained("reppoints_v2"))


def test_masks_are_learned_and_scored_where_there_are_some():
    scope: dict[str, Any] = {}
    exec(mmdetection_config(trained("cascade_mask_rcnn"), IMAGENET), scope)
    assert scope["val_evaluator"]["metric"] == ["bbox", "segm"]
    assert scope["model"]["roi_head"]["mask_head"]["num_classes"] == len(CLASSES)
    spec = DetectorSpec(name="cascade_mask_rcnn", masks=False)
    exec(mmdetection_config(replace(trained("fcos"), detector=spec), IMAGENET), scope)
    assert scope["val_evaluator"]["metric"] == ["bbox"]
    assert "mask_head" not in scope["model"]["roi_head"]
