"""`nas pretrain`, from folders of images to a detector that is fine-tuned, and over interruptions
of every kind.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.commands import BIN, Run, run_here
from safetensors import safe_open
from safetensors.torch import load_file

from nas.artifacts.paths import CHECKPOINT
from nas.cli.progress import EpochProgress
from nas.config.pretraining import load_pretraining
from nas.data.image_folder import SPLITS, LabelledImages, find_classes, read_split
from nas.errors import OutputError
from nas.models.backbones import build_backbone
from nas.models.weights import load_backbone_weights
from nas.reports import PretrainingReport
from nas.training.pretraining import Pretraining, pretrain
from search_spaces.layout import Layout

LAYOUT = "C1-C1-T1-T1@16"
CALM = [
    "--image-size",
    "32",
    "--batch",
    "10",
    "--lr",
    "0.003",
    "--set",
    "recipe.augment=light",
    "--set",
    "recipe.flip=0",
]


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.fixture(scope="module")
def pretrained(sorted_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs, of which the first is trained by a command of its own, which is interrupted."""
    out = tmp_path_factory.mktemp("pretrained") / "digits.safetensors"
    command = ["pretrain", LAYOUT, "--data", sorted_digits, "--out", out, "--epochs", "4", *CALM]

    def interrupt(self: EpochProgress, report: PretrainingReport) -> None:
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpochProgress, "on_report", interrupt)
        assert run_here("nas", *command).code == 130
    assert names(out.parent) == {
        "digits.safetensors.training",
        "digits.curves.csv",
    }  # no weights yet, not even half of them
    assert run_here("nas", *command).code == 0
    return out


def test_it_learns(pretrained: Path):
    assert names(pretrained.parent) == {"digits.safetensors", "digits.curves.csv"}
    with open(pretrained.with_suffix(".curves.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["top1"]) > 0.5  # chance is 0.2
    assert float(rows[-1]["loss"]) < 0.85 * float(rows[0]["loss"])
    assert all(float(row["top5"]) == 1 for row in rows)  # of five classes


def test_the_file_says_what_it_is(pretrained: Path, sorted_digits: Path):
    with safe_open(pretrained, "pt") as file:
        facts = file.metadata()
    assert (facts["format"], facts["layout"], facts["seed"], facts["epochs"], facts["data"]) == (
        "pt",
        LAYOUT,
        "0",
        "4",
        "sorted",
    )
    assert json.loads(facts["classes"]) == [f"digit-{label}" for label in range(5)]
    assert (facts["train_images"], facts["val_images"]) == ("150", "50")
    assert json.loads(facts["recipe"])["label_smoothing"] == 0.1
    assert json.loads(facts["versions"])["torch"] == torch.__version__.partition("+")[0]
    with open(pretrained.with_suffix(".curves.csv"), newline="") as table:
        assert float(facts["top1"]) == float(list(csv.DictReader(table))[-1]["top1"])


def test_a_backbone_takes_all_of_it(pretrained: Path):
    backbone = build_backbone(Layout.parse(LAYOUT))
    report = load_backbone_weights(backbone, pretrained)
    assert (report.source, report.missing, report.unused, report.misfits) == (
        "scratch-nas backbone",
        (),
        (),
        (),
    )
    state = load_file(pretrained)
    assert set(state) == set(backbone.state_dict())
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.state_dict().items())
    assert state["norms.2.weight"].eq(1).all()  # classification has no use for it
    assert not state["norms.3.weight"].eq(1).all()


def test_a_detector_is_fine_tuned_from_it(pretrained: Path, digits: Path, tmp_path: Path, nas: Run):
    settings = [
        "--recipe",
        "tiny",
        "--detector",
        "fcos",
        "--epochs",
        "1",
        "--image-size",
        "48",
        "--set",
        "detector.channels=64",
    ]
    command = [
        "train",
        LAYOUT,
        "--data",
        digits,
        *settings,
        "--no-onnx",
        "--out",
        tmp_path / "tuned",
    ]
    code, out, err = nas(*command, "--set", f"recipe.weights={pretrained}")
    assert code == 0
    assert "mAP" in out
    assert err.splitlines()[0] == "weights: taken over 76 of 76 tensors from scratch-nas backbone"


def test_json(sorted_digits: Path, tmp_path: Path, nas: Run):
    out = tmp_path / "new" / "w.safetensors"
    code, said, _ = nas(
        "pretrain", LAYOUT, "--data", sorted_digits, "--out", out, "--epochs", "1", *CALM, "--json"
    )
    facts = json.loads(said)
    assert (code, facts["out"], facts["layout"], facts["epochs"], facts["device"]) == (
        0,
        str(out),
        LAYOUT,
        1,
        "cpu",
    )
    assert 0 <= facts["top1"] <= facts["top5"] == 1
    assert Path(facts["curves"]).is_file()


@pytest.fixture(scope="module")
def data(sorted_digits: Path) -> tuple[tuple[str, ...], LabelledImages, LabelledImages]:
    classes = find_classes(sorted_digits)
    return classes, *(read_split(sorted_digits, split, classes).share(0, 3) for split in SPLITS)


def asked(folder: Path, classes: tuple[str, ...], **keys: object) -> Pretraining:
    """Three epochs of three steps."""
    settings = {"epochs": 3, "image_size": 32, "batch": 20, "lr": 2e-3, **keys}
    spec = load_pretraining(
        {"data": "x", **{f"recipe.{name}": value for name, value in settings.items()}}
    )
    return Pretraining(
        Layout.parse(LAYOUT),
        spec.recipe,
        classes,
        "f",
        0,
        folder / "w.safetensors",
        folder / "work",
    )


def comparable(report: PretrainingReport) -> PretrainingReport:
    return dataclasses.replace(report, train_s=0.0, elapsed_s=0.0)


RUNS = [
    {"schedule": "cosine", "images_per_gpu": 10},
    {"schedule": "saturate", "patience": 1, "min_gain": 0.5, "checkpointing": "full"},
    {"name": "resnet", "schedule": "step", "decay_epochs": [1], "augment": "strong"},
]


@pytest.mark.parametrize("keys", RUNS, ids=lambda keys: keys["schedule"])
def test_an_interruption_after_any_step_changes_nothing(tmp_path: Path, data: tuple, keys: dict):
    """No process trains for more than one step; each leaves a checkpoint."""
    whole, killed = (asked(tmp_path / name, data[0], **keys) for name in ("whole", "killed"))
    killed = dataclasses.replace(killed, checkpoint_s=0.0)
    expected = [comparable(report) for report in pretrain(whole, *data[1:])]
    kills, reports = 0, []

    def kill(step: int, of: int, loss: object) -> None:
        if step < of:  # the last one's checkpoint is that of the epoch
            raise KeyboardInterrupt

    while reports[-1:] != expected[-1:]:
        torch.manual_seed(100 + kills)  # as of another process
        run = pretrain(killed, *data[1:], on_step=kill)
        try:
            reports += [comparable(next(run))]
            reports += [comparable(next(run))]
        except KeyboardInterrupt:
            kills += 1
        assert kills < 9
    assert (kills, list(dict.fromkeys(map(str, reports)))) == (
        2 * len(expected),
        list(map(str, expected)),
    )
    mine, yours = load_file(killed.out), load_file(whole.out)
    assert all(torch.equal(mine[name], yours[name]) for name in yours)


def test_epochs_that_are_not_scored_change_nothing(tmp_path: Path, data: tuple):
    classes, train, val = data
    often, seldom = (asked(tmp_path / str(n), classes, eval_every=n) for n in (1, 2))
    expected = list(map(comparable, pretrain(often, train, val)))
    assert list(map(comparable, pretrain(seldom, train, val))) == expected[1:]
    mine, yours = load_file(seldom.out), load_file(often.out)
    assert all(torch.equal(mine[name], yours[name]) for name in yours)


def test_a_file_that_cannot_be_written_is_written_later(
    tmp_path: Path, data: tuple, monkeypatch: pytest.MonkeyPatch
):
    def full(state: dict, metadata: dict) -> bytes:
        raise OSError(28, "No space left on device")

    run = asked(tmp_path, data[0], epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr("nas.training.checkpoint.save", full)
        with pytest.raises(OutputError, match="w.safetensors' cannot be written: No space left"):
            list(pretrain(run, *data[1:]))
    assert names(tmp_path) == {"work"}
    (report,) = pretrain(run, *data[1:])  # nothing is trained again
    assert (report.epoch, names(tmp_path)) == (1, {"work", "w.safetensors"})
    assert len((tmp_path / "work" / "log.jsonl").read_text().splitlines()) == 1


def test_it_can_start_from_weights(tmp_path: Path, data: tuple, pretrained: Path):
    run = asked(tmp_path, data[0], epochs=1, weights=str(pretrained), lr=1e-12)
    list(pretrain(run, *data[1:]))
    before, after = load_file(pretrained), load_file(run.out)
    assert all(
        torch.allclose(after[name], before[name], atol=1e-6)
        for name in before
        if name.endswith(("weight", "bias"))
    )


def test_what_diverges_stops_in_one_line_and_keeps_its_checkpoint(
    sorted_digits: Path, tmp_path: Path, nas: Run, monkeypatch: pytest.MonkeyPatch
):
    out, work = tmp_path / "w.safetensors", tmp_path / "w.safetensors.training"
    command = ["pretrain", LAYOUT, "--data", sorted_digits, "--out", out, "--epochs", "2", *CALM]

    def interrupt(self: EpochProgress, report: PretrainingReport) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochProgress, "on_report", interrupt)
        assert nas(*command)[::2] == (
            130,
            "Stopped. The same command goes on where this one stopped.\n",
        )
    before = (work / CHECKPOINT).read_bytes()
    code, said, err = nas(*command, "--seed", "1")
    assert (code, said) == (2, "")
    assert "belongs to another run" in err
    assert err.endswith(f"to begin anew with other settings remove '{work}'\n")
    with monkeypatch.context() as patch:
        patch.setattr("nas.training.epochs.lr_at", lambda *_: 1e30)
        code, said, err = nas(*command)
    assert (code, said) == (2, "")
    line = err.splitlines()[-1]
    assert line.startswith("nas: the loss is not finite at step ")
    assert (work / CHECKPOINT).read_bytes() == before
    assert not out.exists()


def test_an_image_that_breaks_in_the_middle_is_named(sorted_digits: Path, tmp_path: Path, nas: Run):
    mine = tmp_path / "mine"
    shutil.copytree(sorted_digits, mine)
    victim = sorted((mine / "train" / "digit-0").iterdir())[0]

    class Breaking(EpochProgress):
        def on_step(self, *_: object) -> None:
            victim.write_bytes(b"bad")

    command = [
        "pretrain",
        LAYOUT,
        "--data",
        mine,
        "--out",
        tmp_path / "w.safetensors",
        "--epochs",
        "9",
        *CALM,
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.cli.progress.EpochProgress", Breaking)
        code, said, err = nas(*command)
    assert (code, said) == (2, "")
    line = err.splitlines()[-1]
    assert (
        line
        == f"nas: image '{victim}' was sound when the data set was checked, and is not now: is "
        "not an image"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("augment", ["light", "strong"])
def test_on_a_gpu(tmp_path: Path, data: tuple, augment: str):
    run = dataclasses.replace(
        asked(tmp_path, data[0], epochs=6, augment=augment, loader_workers=2), device="cuda"
    )
    reports = list(pretrain(run, *data[1:]))
    assert reports[-1].loss < reports[0].loss
    assert reports[-1].memory_peak_bytes > 0
    assert load_file(run.out)["stem.conv.weight"].dtype == torch.float32


@pytest.mark.long
def test_two_processes_equal_one(sorted_digits: Path, tmp_path: Path):
    """Of torchrun; without batch norms, whose statistics are those of one process's images."""
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--no-python",
    ]
    tables = []
    for name, launcher in (("one", []), ("two", torchrun)):
        command = [
            "pretrain",
            LAYOUT + "+norm=gn",
            "--data",
            str(sorted_digits),
            "--out",
            str(tmp_path / f"{name}.safetensors"),
        ]
        ran = subprocess.run(
            [*launcher, BIN / "nas", *command, "--epochs", "2", *CALM],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert len(ran.stdout.splitlines()) == 2  # of the first process alone
        with open(tmp_path / f"{name}.curves.csv", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    for mine, yours in zip(*tables, strict=True):
        assert float(mine["loss"]) == pytest.approx(float(yours["loss"]), abs=1e-3)
        assert float(mine["top1"]) == pytest.approx(float(yours["top1"]), abs=0.05)
