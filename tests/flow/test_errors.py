"""What a user gets wrong: one line that says the rule, the value and the choices, exit code 2,
nothing left behind.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.commands import PROGRAMS, Outcome, Run, run_here
from helpers.image_folders import make_image_folder
from safetensors.torch import save

from nas.cli import main
from nas.models.backbones import build_backbone
from search_spaces.layout import Layout


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Outcome]:
    """Run a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda line: run_here(*line.split())


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


CLUSTER = "nas-submit --cluster http://127.0.0.1:1 --data {digits} --output /runs"
FINE_TUNE = (
    "nas train C1-C1-T1-T1@16 --data {digits} --recipe tiny --image-size 48 --out new --set "
    "recipe.weights="
)
PRETRAIN = "nas pretrain C1-C1-T1-T1@16 --out new.safetensors --data "
REFUSED = [
    ("nas-submit", "--data DIR"),
    ("nas-submit --data nowhere", "data set folder 'nowhere' does not exist"),
    (
        "nas-submit --data {digits} --trials 0",
        "search.trials must be greater than or equal to 1; got 0",
    ),
    ("nas-submit --data {digits} --trials many", "--trials.*valid integer"),
    ("nas-submit --data {digits} --trails 3", "No such option: --trails.*--trials"),
    (
        "nas-submit --data {digits} --detector focs",
        "must be one of fcos, faster_rcnn, .*; got 'focs' .did you mean 'fcos'",
    ),
    (
        "nas-submit --data {digits} --sampler bayes",
        "must be one of gp, multifidelity, tpe, nsga2, random, grid; got 'bayes'",
    ),
    (
        "nas-submit --data {digits} --pruner asha",
        "must be one of none, multifidelity, median, hyperband; got 'asha'",
    ),
    (
        "nas-submit --data {digits} --space tny",
        "must be one of free, paper, scales, tiny; got 'tny' .did you mean 'tiny'",
    ),
    (
        "nas-submit --data {digits} --recipe x",
        "recipe must be one of auto, paper, paper-24, paper-sota, proxy, tiny; got 'x'",
    ),
    ("nas-submit --data {digits} --budget 16", "a number and a unit .*; got '16'"),
    ("nas-submit --data {digits} --budget 0GiB", "must be above 0; got '0GiB'"),
    (
        "nas-submit --data {digits} --image-size 16",
        "recipe.image_size must be greater than or equal to 32; got 16",
    ),
    (
        "nas-submit --data {digits} --set recipe.epohs=3",
        "a key of recipe must be one of .*did you mean 'epochs'",
    ),
    ("nas-submit --data {digits} --set epochs", "--set takes key.path=value.*got 'epochs'"),
    ("nas-submit --data {digits} --set recipe.lr=[", "--set recipe.lr: the value must be YAML"),
    (
        "nas-submit --data {digits} --space tiny --set search.try=[C9-C1-T1-T1@16]",
        "C9-C1-T1-T1@16 is not in space 'tiny'",
    ),
    ("nas-submit --data {digits} --set search.try=[C1-X1]", "4 stages|one of C, T"),
    ("nas-submit gone.yaml --data {digits}", "'gone.yaml' cannot be read"),
    ("nas-submit --data {digits} --storage nas.db --space tiny", "storage must be a database URL"),
    (
        "nas-submit --data {digits} --storage sqlite:///no/nas.db --space tiny",
        "folder 'no' does not exist",
    ),
    (
        "nas-submit --data {digits} --storage postgresql+psycopg://u:secret@localhost:1/x",
        r"u:\*\*\*@localhost:1/x cannot be opened",
    ),
    (
        "nas-submit --data {digits} --space tiny --local --output /proc/new",
        "run.output '/proc/new' cannot be written: ",
    ),
    ("nas make-data /proc/new/digits --train 1", "No such file or directory: '/proc/new"),
    (
        "nas-submit --data {digits} --storage mongodb://u:secret@h/x --space tiny",
        "unknown kind of database 'mongodb'",
    ),
    (
        "nas-submit --data {digits} --space tiny --budget 1MiB --local",
        "no layout of space 'tiny' fits into 0.001 GiB",
    ),
    (
        "nas-submit --data {digits} --budget 16XB",
        "a number and a unit (.*), for example 16GiB; got '16XB'",
    ),
    (
        "nas-submit --data {digits} --set budget.mode=equal",
        "must be one of cap, equalize; got 'equal'",
    ),
    (
        "nas-submit --data {digits} --set budget.like=swin",
        "budget.like: a stage is a kind .C or T. and a depth",
    ),
    (
        "nas-submit --data {digits} --space tiny --local --set budget.mode=equalize",
        "no layout of space 'tiny' meets the budget: the budget is 15.2 to 16.0 GiB; the nearest "
        "is .* raise budget.tolerance",
    ),
    (
        "nas-submit --data {digits} --objectives memory",
        "objectives must begin with map and name nothing twice; got memory",
    ),
    (
        "nas-submit --data {digits} --objectives map,speed",
        "one of map, memory, flops, params, fps, latency; got 'speed'",
    ),
    (
        "nas-submit --data {digits} --objectives map,fps --pruner median",
        "pruner must be none with several .*'median'",
    ),
    (
        "nas profile C2-C2-T12-T4 --precision fp8",
        "--precision must be one of fp32, bf16; got 'fp8'",
    ),
    ("nas profile C2-C2-T12-T4 --image-size 16", "--image-size"),
    ("nas paper-tables --measured gone.json", "--measured 'gone.json' cannot be read"),
    ("nas-submit --data {corrupt} --space tiny", "instances_train.json' is not JSON"),
    (
        "nas-submit --data {faulty} --space tiny",
        "faults that cannot be repaired: 00001.jpg: missing image",
    ),
    ("nas-submit --data {empty} --space tiny", "split 'train' of .* has no usable box"),
    ("nas-export --out best", "there is no file 'nas.db'"),
    ("nas-export", "Missing option '--out'"),
    ("nas verify gone", "bundle folder 'gone' does not exist"),
    ("nas verify {digits}", "has no manifest.json"),
    ("nas reproduce gone --data {digits}", "bundle folder 'gone' does not exist"),
    ("nas-dashboard", "there is no file 'nas.db'"),
    ("nas list", "there is no file 'nas.db'"),
    ("nas logs", "there is no file 'nas.db'"),
    ("nas-submit --data {digits} --space tiny --local --warm-start x", "there is no file 'nas.db'"),
    ("nas-submit --data {digits} --space tiny --local --prior x", "there is no file 'nas.db'"),
    (
        "nas-submit --data {digits} --sampler tpe --prior builtin",
        "prior must be left out with any sampler but multifidelity; got sampler 'tpe'",
    ),
    (
        "nas-submit --data cells --cluster http://127.0.0.1:1",
        "data.root must be a URL or an absolute path.* got 'cells'",
    ),
    (CLUSTER, "storage must be a database server, PostgreSQL or MySQL, .* got an SQLite file"),
    (
        CLUSTER + " --storage postgresql+psycopg://u:secret@h/x",
        "must not name a password .* set NAS_STORAGE on the cluster's head",
    ),
    (
        CLUSTER + " --storage postgresql+psycopg://u@h/x",
        "run.cluster 'http://127.0.0.1:1': no Ray cluster answers there",
    ),
    (
        CLUSTER + " --set recipe.weights=w.pt",
        "recipe.weights must be a URL or an absolute path, the same on every .*'w.pt'",
    ),
    (CLUSTER + " --local", "--local and run.cluster exclude each other"),
    (CLUSTER + " --json", "--json on a cluster needs --detach"),
    ("nas status --storage sqlite:///other.db", "there is no file 'other.db'"),
    ("nas profile C2-C2", "a layout has 4 stages.*got 2 in 'C2-C2'"),
    ("nas profile C2-C2-T12-T4 --detector x", "must be one of fcos, faster_rcnn, .*; got 'x'"),
    (
        "nas profile C2-C2-T12-T4 --set chanels=64",
        "must be one of name, roi_op, neck, channels, hidden, .*; got 'chanels'",
    ),
    ("nas train C2-C2-T12-T4 --out new", "--data DIR"),
    (
        "nas-submit --data {digits} --set recipe.weights=gone.pt",
        "recipe.weights 'gone.pt': there is no such file",
    ),
    (
        "nas-submit --data {digits} --set recipe.weights=gone.bin",
        "weights must be a file that ends in .safetensors, .pt, .pth; got 'gone.bin'",
    ),
    (FINE_TUNE + "{weights}/gone.pth", "recipe.weights '.*/gone.pth': there is no such file"),
    (
        FINE_TUNE + "{weights}/half.safetensors",
        "weights '.*/half.safetensors': it is cut off or damaged",
    ),
    (
        FINE_TUNE + "{weights}/code.pth",
        "weights '.*/code.pth': reading it would run code .* save its tensors as .safetensors",
    ),
    (
        FINE_TUNE + "{weights}/nan.pt",
        "weights '.*/nan.pt': weights must be finite; stem.conv.weight has values that are not",
    ),
    (
        FINE_TUNE + "{weights}/other.pt",
        "nothing of this scratch-nas backbone, T1-T1-.*, fits C1-C1-T1-T1@16,32,64,128: taken",
    ),
    (PRETRAIN + "nowhere", "data set folder 'nowhere' does not exist"),
    (PRETRAIN + "{digits}", "split 'train' of '.*' has no class: images must be in train/CLASS/"),
    (
        PRETRAIN + "{images}/no-val",
        "no split 'val' in '.*/no-val'; looked for val/CLASS/ with images",
    ),
    (PRETRAIN + "{images}/unequal", "must have the same classes; only in 'val': zebra"),
    (PRETRAIN + "{images}/single", "must have at least 2 classes; got digit-0"),
    (PRETRAIN + "{images}/empty", "each class of '.*/train' must have an image .*; not: digit-1"),
    (
        PRETRAIN + "{images}/broken",
        "broken/val' has images that cannot be read: digit-0/x.jpg .is not an image",
    ),
    (
        PRETRAIN + "{images}/broken --epochs 0",
        "recipe.epochs must be greater than or equal to 1; got 0",
    ),
    (
        PRETRAIN + "{images}/broken --recipe swim",
        "recipe must be one of resnet, swin; got 'swim' .did you mean 'swin'",
    ),
    (
        PRETRAIN + "{images}/broken --set recipe.augment=hard",
        "recipe.augment must be 'light' or 'strong'; got 'hard'",
    ),
    (
        PRETRAIN + "{images}/broken --set recipe.weights=gone.pt",
        "recipe.weights 'gone.pt': there is no such file",
    ),
    (
        PRETRAIN + "{images}/broken --set recipe.weights={weights}/other.pt",
        "nothing of this scratch-nas backbone, T1-T1-.*, fits C1",
    ),
    (
        PRETRAIN + "{images}/broken --out new.pt",
        "--out must be a file that ends in .safetensors; got 'new.pt'",
    ),
    (
        PRETRAIN + "{images}/broken --out {weights}/half.safetensors",
        "half.safetensors' exists already: choose a new file",
    ),
    (
        PRETRAIN + "{images}/broken --out /proc/new/w.safetensors",
        "'/proc/new/w.safetensors.training' cannot be written: No such",
    ),
    ("nas pretrain C1-C1 --data x --out x.safetensors", "a layout has 4 stages.*got 2 in 'C1-C1'"),
    ("nas train nothing --data {digits} --out new", "a layout|a stage is a kind"),
    ("nas train C1-C1-T1-T1@16 --data {digits} --recipe tiny --out {digits}", "holds other files"),
    ("nas evaluate nowhere --data {digits}", "bundle folder 'nowhere' does not exist"),
    ("nas evaluate {digits} --data {digits}", "detector.yaml' cannot be read"),
    ("nas evaluate . --data {digits} --split test", "no split 'test'"),
    ("nas check-data nowhere", "'nowhere' does not exist"),
    ("nas make-data {digits}", "exists already: choose a new folder"),
    ("nas make-data new --train 0", "--train"),
    ("nas nonsense", "No such command 'nonsense'"),
]


@pytest.fixture(scope="session")
def faulty_data(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies of the digits with a fault each."""
    made = {"digits": digits}
    for name in ("corrupt", "faulty", "empty"):
        made[name] = tmp_path_factory.mktemp("faulty") / name
        shutil.copytree(digits, made[name])
    (made["corrupt"] / "instances_train.json").write_text('{"images": [')
    (made["faulty"] / "train" / "00001.jpg").unlink()
    coco = json.loads((made["empty"] / "instances_train.json").read_text())
    (made["empty"] / "instances_train.json").write_text(json.dumps({**coco, "annotations": []}))
    faulty = {"weights": faulty_weights(tmp_path_factory.mktemp("weights"))}
    return made | faulty | {"images": faulty_images(tmp_path_factory.mktemp("images"))}


def faulty_weights(folder: Path) -> Path:
    state = build_backbone(Layout.parse("C1-C1-T1-T1@16")).state_dict()
    (folder / "half.safetensors").write_bytes(save(state)[:-100])
    torch.save({"model": state, "loss": torch.nn.MSELoss()}, folder / "code.pth")
    torch.save(
        {**state, "stem.conv.weight": torch.full((16, 3, 7, 7), torch.nan)}, folder / "nan.pt"
    )
    torch.save(build_backbone(Layout.parse("T1-T1-C1-C1@20")).state_dict(), folder / "other.pt")
    return folder


def faulty_images(folder: Path) -> Path:
    """Images in folders by class, each with a fault."""
    for name in ("no-val", "unequal", "single", "empty", "broken"):
        make_image_folder(folder / name, classes=2, train=2, val=1, size=32)
    shutil.rmtree(folder / "no-val" / "val")
    (folder / "unequal" / "val" / "zebra").mkdir()
    for split in ("train", "val"):
        shutil.rmtree(folder / "single" / split / "digit-1")
    for image in (folder / "empty" / "train" / "digit-1").iterdir():
        image.rename(image.with_suffix(".txt"))
    (folder / "broken" / "val" / "digit-0" / "x.jpg").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize(("command", "words"), REFUSED, ids=lambda text: text[:60])
def test_one_line_exit_code_2_nothing_left(
    run: Callable, faulty_data: dict, tmp_path: Path, command: str, words: str
):
    code, out, err = run(command.format(**faulty_data))
    assert code == 2
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(command.split(maxsplit=1)[0] + ": ")
    assert re.search(words, line), line
    assert "secret" not in line
    assert files(tmp_path) == set()


def test_a_new_database_is_not_made_for_a_wrong_request(
    run: Callable, digits: Path, tmp_path: Path
):
    command = (
        f"nas-submit --data {digits} --space tiny --local --budget 1MiB --storage "
        f"sqlite:///{tmp_path}/mine.db"
    )
    assert run(command)[0] == 2
    assert files(tmp_path) == set()


def test_a_training_that_diverges_is_one_line_and_exit_code_1(run: Callable, digits: Path):
    command = (
        f"nas train C1-C1-T1-T1@16 --data {digits} --recipe tiny --image-size 48 --epochs 1 --out "
        "new --set recipe.lr=1e30"
    )
    code, _, err = run(command)
    assert code == 1
    assert re.fullmatch(
        "nas: the training ended: the (loss|gradient) is not finite at step .*",
        err.splitlines()[-1],
    )
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--data", "nowhere"], ["--data", "nowhere", "--local"], ["--trials", "x"]],
)
def test_quick_answers_import_neither_torch_nor_ray(arguments: list[str]):
    script = (
        "import sys\nsys.argv = ['nas-submit', *sys.argv[1:]]\nfrom nas.cli.submit import main\n"
        "try:\n    main()\nfinally:\n    print(*({'torch', 'ray', 'optuna', 'numpy'} & "
        "set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert ran.returncode == (0 if arguments == ["--help"] else 2)
    assert ran.stderr.splitlines()[-1] == ""


@pytest.mark.parametrize("program", PROGRAMS)
def test_help(run: Callable, program: str):
    code, out, err = run(f"{program} --help")
    assert (code, err) == (0, "")
    assert "Usage: " + program in out


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_command_explains_itself(run: Callable, command: str):
    code, out, _ = run(f"nas {command} --help")
    assert code == 0
    assert len(out.splitlines()) > 5


def test_version(run: Callable):
    import nas

    assert run("nas --version")[:2] == (0, f"scratch-nas {nas.__version__}\n")


def test_a_request_runs_no_function_unless_that_is_allowed(nas: Run, tmp_path: Path):
    (tmp_path / "request.yaml").write_text("space: os:abort\ndata: nowhere\n")
    for words in (["submit", tmp_path / "request.yaml"], ["submit", "--space", "os:abort"]):
        refused = nas(*words, "--dry-run")
        assert refused.code == 2
        assert "space 'os:abort' is a function of Python code, which would be run" in refused.err
