"""Bundles with changed files, names and links: each is read, or refused in one line."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers.bounds import command_end, refused_in_one_line
from helpers.commands import run_here
from helpers.mutations import HOSTILE_VALUES, VALUES, changed, damaged, number_of_times

from nas.api.bundle import Bundle
from nas.api.prediction import Predictor
from nas.api.requests import training_request
from nas.cli.verify import verify
from nas.export.bundle import read_bundle
from nas.export.manifest import MANIFEST, write_manifest
from nas.export.onnx.writer import write_onnx

NAMES = ["layout", "stages", "depth", "categories", "detector", "format", "F32", "x", "shape"]
PIECES = [
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n", b"- ", b"*a", b"!!python/name:os.abort "),
    *(b"\x00" * 8, b"\xff" * 8, b"9" * 400, b"import os\n", b"F64", b"Loop", b"MatMul", b"../x"),
]
ODD_NAMES = ["torch.py", "a\nb", "é", ".hidden", "last.safetensors", "sitecustomize.py", "x" * 255]
ONNX = ("backbone.onnx", "detector.onnx")
Mutation = Callable[[Path, random.Random], None]


@pytest.fixture(scope="module")
def bundle(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a training of one epoch, without ONNX."""
    out = tmp_path_factory.mktemp("trained") / "one"
    sizes = ["--epochs", "1", "--image-size", "48", "--set", "detector.channels=32"]
    command = ["train", "C1-C1-C1-T1@16", "--data", digits, "--recipe", "tiny", "--detector"]
    assert run_here("nas", *command, "fcos", *sizes, "--no-onnx", "--out", out).code == 0
    return out


@pytest.fixture(scope="module")
def onnx_bundle(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "one"
    shutil.copytree(bundle, out)
    assert write_onnx(out, read_bundle(out)[1]) == []
    seal(out)
    return out


def seal(folder: Path) -> None:
    """As somebody does who changes a bundle and does not want it to show."""
    if all(path.is_file() for path in folder.iterdir()):
        (folder / MANIFEST).unlink(missing_ok=True)
        write_manifest(folder)


def put(path: Path, content: bytes) -> None:
    """Write a file anew: the old one has a second name."""
    path.unlink()
    path.write_bytes(content)


def an_entry(folder: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(folder.iterdir()))


def change_yaml(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice(["detector.yaml", "detector.yaml", "backbone.yaml"])
    content = changed(yaml.safe_load(path.read_bytes()), rng, NAMES, [*VALUES, *HOSTILE_VALUES])
    put(path, yaml.safe_dump(content, sort_keys=False, width=120).encode())


def change_manifest(folder: Path, rng: random.Random) -> None:
    path = folder / MANIFEST
    content = changed(json.loads(path.read_bytes()), rng, NAMES, [*VALUES, *HOSTILE_VALUES])
    put(path, (json.dumps(content, indent=2, sort_keys=True, default=str) + "\n").encode())


def change_tensors(folder: Path, rng: random.Random) -> None:
    """The header of a file of tensors: names, kinds, shapes, places."""
    path = rng.choice(sorted(folder.glob("*.safetensors")))
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = changed(json.loads(content[8 : 8 + length]), rng, NAMES, [*VALUES, *HOSTILE_VALUES])
    text = json.dumps(header).encode()
    stated = rng.choice([len(text)] * 9 + [rng.randrange(2**64)])
    put(path, stated.to_bytes(8, "little") + text + content[8 + length :])


def damage(folder: Path, rng: random.Random) -> None:
    path = an_entry(folder, rng)
    content = path.read_bytes()
    at = rng.choice([0, rng.randrange(len(content))])
    part = content[at : at + 2000]
    put(path, content[:at] + damaged(part, rng, PIECES) + content[at + 2000 :])


def move(folder: Path, rng: random.Random) -> None:
    """Names that are missing, new, or those of another file."""
    path, other = an_entry(folder, rng), an_entry(folder, rng)
    what = rng.randrange(3)
    if what == 0:
        path.unlink()
    elif what == 1:
        path.rename(folder / rng.choice([*ODD_NAMES, other.name]))
    else:
        content = other.read_bytes()
        (folder / rng.choice(ODD_NAMES)).write_bytes(content)
        put(path, content)


def put_no_file(folder: Path, rng: random.Random) -> None:
    """A link, a pipe or a folder in place of a file."""
    path = an_entry(folder, rng)
    path.unlink()
    what = rng.randrange(4)
    if what == 0:
        os.mkfifo(path)
    elif what == 1:
        path.mkdir()
    else:
        path.symlink_to(rng.choice(["/dev/zero", "/etc/passwd", path.name, "README.md", "/"]))


def change_onnx(folder: Path, rng: random.Random) -> None:
    """Mostly between the weights, which are most of the file."""
    path = folder / rng.choice(ONNX)
    content = path.read_bytes()
    at = rng.choice([content.find(word, rng.randrange(len(content))) for word in PLACES])
    part = content[max(at, 0) : max(at, 0) + 200]
    put(path, content[: max(at, 0)] + damaged(part, rng, PIECES) + content[max(at, 0) + 200 :])


PLACES = [b"Conv", b"node_", b"Reshape", b"Gather", b"axis", b"perm", b"Constant"]


def look(folder: Path) -> None:
    """As a notebook shows it."""
    bundle = Bundle(folder)
    assert bundle._repr_html_()
    assert str(bundle.categories)


def reader(folder: Path, data: Path, rng: random.Random) -> Callable[[], object]:
    """What is done with the bundle: most of the time it is verified."""
    return rng.choice(
        [
            *[lambda: verify(folder, None, False, rng.random() < 0.5)] * 3,
            lambda: training_request(str(folder), {"data.root": str(data)}),
            lambda: Predictor(folder),
            lambda: look(folder),
        ]
    )


def check(made: Path, mutations: list[Mutation], data: Path, place: Path, numbers: range) -> None:
    """Each number is one mutation of the bundle, read or refused."""
    refused, before = 0, {path: path.read_bytes() for path in made.iterdir()}
    for number in numbers:
        rng, folder = random.Random(number), place / str(number)
        shutil.copytree(made, folder, copy_function=os.link)
        mutate = rng.choice(mutations)
        mutate(folder, rng)
        if mutate is not change_manifest and rng.random() < 0.8:
            seal(folder)
        try:
            refused += refused_in_one_line(command_end(reader(folder, data, rng), place))
        except BaseException as error:
            raise AssertionError(f"number {number}: {mutate.__name__}, see {folder}") from error
        shutil.rmtree(folder)
    assert 0 < refused < len(numbers)
    assert before == {path: path.read_bytes() for path in made.iterdir()}


MUTATIONS: list[Mutation] = [
    *[change_yaml] * 3,
    change_manifest,
    change_tensors,
    damage,
    move,
    put_no_file,
]


@number_of_times(40, 9700)
def test_any_bundle_is_read_or_refused_in_a_line(
    bundle: Path, digits: Path, tmp_path: Path, times: int
):
    check(bundle, MUTATIONS, digits, tmp_path, range(times))


@pytest.mark.long
def test_any_onnx_is_compared_or_refused_in_a_line(onnx_bundle: Path, digits: Path, tmp_path: Path):
    check(onnx_bundle, [change_onnx], digits, tmp_path, range(300))
