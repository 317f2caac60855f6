"""Backbone weights from files: what is taken over, what the report says of the rest, and which
files are refused.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.networks import randomize
from safetensors.torch import save, save_file
from torch import Tensor
from torchvision.models import SwinTransformer, resnet18
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from nas.config.sections import DetectorSpec
from nas.errors import SpecError
from nas.models.backbones import HybridBackbone, build_backbone
from nas.models.detectors import DETECTORS, build_detector
from nas.models.weights import WeightsReport, load_backbone_weights
from nas.utils.paths import to_path
from search_spaces.layout import Layout

SMALL = "C1-C1-T2-T1@16"


def network(layout: str = SMALL, seed: int = 0) -> HybridBackbone:
    made = build_backbone(Layout.parse(layout))
    with torch.no_grad():
        randomize(made, seed)
    return made


def copied(backbone: HybridBackbone) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.state_dict().items()}


def swin_state(**how: object) -> dict[str, Tensor]:
    """torchvision's, with the dimensions of T1-T1-T2-T1@16."""
    return SwinTransformer(
        [4, 4], 16, [1, 1, 2, 1], [1, 1, 2, 4], [7, 7], num_classes=3, **how
    ).state_dict()


def written(path: Path, content: object) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_our_own_backbone_comes_back_whole(tmp_path: Path, suffix: str):
    first, second = network(), network(seed=1)
    first.stem.norm.num_batches_tracked.fill_(5)
    report = load_backbone_weights(
        second, written(tmp_path / f"backbone{suffix}", first.state_dict())
    )
    assert all(
        torch.equal(second.state_dict()[name], tensor)
        for name, tensor in first.state_dict().items()
    )
    assert (
        report.summary()
        == f"taken over {len(report.loaded)} of {len(report.loaded)} tensors from scratch-nas "
        "backbone"
    )
    assert set(first.state_dict()) - set(report.loaded) == {
        name for name in first.state_dict() if "num_batches" in name
    }


@pytest.mark.parametrize("detector", DETECTORS)
def test_our_own_detector_gives_its_backbone(tmp_path: Path, detector: str):
    whole = build_detector(
        Layout.parse(SMALL), DetectorSpec(name=detector, channels=32, hidden=64, proposals=5), 3
    )
    with torch.no_grad():
        randomize(whole)
    second = network(seed=1)
    report = load_backbone_weights(
        second, written(tmp_path / "detector.safetensors", whole.state_dict())
    )
    assert all(
        torch.equal(second.state_dict()[name], t)
        for name, t in whole.backbone.backbone.state_dict().items()
    )
    assert (report.source, report.missing, report.unused, report.misfits) == (
        "scratch-nas detector",
        (),
        (),
        (),
    )


def test_a_file_behind_a_url(tmp_path: Path):
    first, second, path = (
        network(),
        network(seed=1),
        to_path("memory://weights/backbone.safetensors"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(first.state_dict()))
    load_backbone_weights(second, path)
    assert all(
        torch.equal(second.state_dict()[name], tensor)
        for name, tensor in first.state_dict().items()
    )
    gone = to_path("memory://weights/gone.pt")
    assert refusal(gone) == f"weights {str(gone)!r}: there is no such file"


@pytest.mark.parametrize("container", ["model", "state_dict", "model_state_dict", "model_ema"])
def test_weights_below_a_name_beside_other_things(tmp_path: Path, container: str):
    first, second = network(), network(seed=1)
    path = written(
        tmp_path / "checkpoint.pt", {"epoch": 3, container: first.state_dict(), "lr": [0.1]}
    )
    load_backbone_weights(second, path)
    assert all(
        torch.equal(second.state_dict()[name], tensor)
        for name, tensor in first.state_dict().items()
    )


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "backbone.", "model.backbone.", "module._orig_mod.model.backbone."],
)
def test_what_training_programs_put_before_names_is_taken_off(tmp_path: Path, prefix: str):
    first, second = network(), network(seed=1)
    state = {f"{prefix}{name}": tensor for name, tensor in first.state_dict().items()}
    state |= {"neck.conv.weight": torch.ones(2), "bbox_head.bias": torch.ones(1)}
    path = written(tmp_path / "wrapped.pth", {"state_dict": state, "epoch": 3})
    report = load_backbone_weights(second, path)
    assert torch.equal(
        second.state_dict()["stem.conv.weight"], first.state_dict()["stem.conv.weight"]
    )
    assert (report.missing, report.misfits) == ((), ())


def test_wrapped_torchvision_weights_are_known(tmp_path: Path):
    state = {f"module.{name}": tensor for name, tensor in swin_state().items()}
    second = network("T1-T1-T2-T1@16")
    report = load_backbone_weights(second, written(tmp_path / "swin.pth", state))
    plain = load_backbone_weights(second, written(tmp_path / "plain.pth", swin_state()))
    assert report.source == "torchvision Swin"
    assert report.loaded == plain.loaded


@pytest.mark.parametrize("number", [np.float64(0.3), np.float32(1), np.int64(3), np.bool_(True)])
def test_a_number_of_numpy_beside_the_weights_is_data(tmp_path: Path, number: object):
    first, second = network(), network(seed=1)
    path = written(tmp_path / "best.pth", {"model": first.state_dict(), "best": number})
    assert load_backbone_weights(second, path).missing == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype):
    state = {
        name: t.to(dtype) if t.is_floating_point() else t
        for name, t in network().state_dict().items()
    }
    second = network(seed=1)
    load_backbone_weights(second, written(tmp_path / "backbone.safetensors", state))
    for name, tensor in second.state_dict().items():
        assert torch.equal(
            tensor, state[name].float() if state[name].is_floating_point() else state[name]
        )
        assert tensor.dtype in (torch.float32, torch.int64)


def test_the_report_says_what_became_of_every_tensor(tmp_path: Path):
    second = network("C1-C1-T2-T1@16+window=4", seed=1)
    before = copied(second)
    state = network("C2-C1-T1-T1@16").state_dict()
    del state["norms.2.bias"]
    report = load_backbone_weights(second, written(tmp_path / "backbone.pt", state))
    after = second.state_dict()
    assert report.source == "scratch-nas backbone"
    assert set(report.unused) == {
        name for name in state if name.startswith("stages.0.1.") and "num_batches" not in name
    }
    assert set(report.missing) == {"norms.2.bias"} | {
        name for name in after if name.startswith("stages.2.blocks.1.")
    }
    tables = [f"stages.{stage}.blocks.0.attention.position_table" for stage in (2, 3)]
    assert report.misfits == tuple(
        (name, (169, heads), (49, heads)) for name, heads in zip(tables, (2, 4), strict=True)
    )
    assert all(torch.equal(after[name], state[name]) for name in report.loaded)
    assert all(torch.equal(after[name], before[name]) for name in (*report.missing, *tables))
    listed = [*report.loaded, *report.missing, *tables]
    assert sorted(listed) == sorted(name for name in after if "num_batches" not in name)
    assert report.summary() == (
        f"taken over {len(report.loaded)} of {len(listed)} tensors from scratch-nas backbone; "
        # norms, attention with its bias, qkv and proj, mlp; norms.2
        "not in the file: stages.2.blocks.1.norm1 (+7); "
        "does not fit: stages.2.blocks.0.attention.position_table [169, 2] instead of [49, 2] "
        "(+1); "
        "has no place: stages.0.1.conv1 (+5)"
    )


def test_a_batch_norm_that_does_not_fit_keeps_its_counter(tmp_path: Path):
    first, second = network("C1-C1-T2-T1@16"), network("C1-C1-T2-T1@16,48,64,128")
    for name, tensor in first.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
    load_backbone_weights(second, written(tmp_path / "backbone.pt", first.state_dict()))
    assert second.stages[0][0].bn3.num_batches_tracked == 7
    assert second.stages[1][0].bn3.num_batches_tracked == 0


def test_group_norms_take_the_scales_of_batch_norms(tmp_path: Path):
    first, second = network("C1-C1-T2-T1@16"), network("C1-C1-T2-T1@16+norm=gn", seed=1)
    report = load_backbone_weights(second, written(tmp_path / "backbone.pt", first.state_dict()))
    assert torch.equal(second.stem.norm.weight, first.stem.norm.weight)
    assert (report.missing, report.misfits) == ((), ())
    assert all("running_" in name for name in report.unused)


def test_the_last_norm_of_a_classifier_needs_a_t_stage(tmp_path: Path):
    path = written(tmp_path / "swin.pt", swin_state())
    assert "norms.3.weight" in load_backbone_weights(network("T1-T1-T2-T1@16"), path).loaded
    report = load_backbone_weights(network("T1-T1-T2-C1@16"), path)
    assert {"norm.weight", "norm.bias"} < set(report.unused)
    assert not any("head" in name or "index" in name for name in report.unused)


class Evil:
    """Touches a file when it is unpickled in the ordinary way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


INSTEAD = "save its tensors as .safetensors (safetensors.torch.save_file)"


@pytest.mark.parametrize(
    ("write", "code"),
    [
        (
            lambda path, what: torch.save(what, path),
            "reading it would run code (getattr), so it was not loaded",
        ),
        (
            lambda path, what: torch.save(what, path, _use_new_zipfile_serialization=False),
            "reading it would run code (getattr), so it was not loaded",
        ),
        (
            lambda path, what: path.write_bytes(pickle.dumps(what, protocol=2)),
            "reading it would run code (getattr), so it was not loaded",
        ),
        (
            lambda path, what: path.write_bytes(pickle.dumps(what)),
            "it is damaged, or a pickle that could run code, and was not loaded",
        ),
    ],
)
def test_weights_never_run_code(tmp_path: Path, write: Callable[[Path, object], object], code: str):
    path = tmp_path / "evil.pth"
    write(path, {"x": Evil(tmp_path / "pwned"), "stem.conv.weight": torch.ones(2)})
    assert refusal(path) == f"weights {str(path)!r}: {code}; {INSTEAD}"
    assert not (tmp_path / "pwned").exists()


def refusal(path: Path, layout: str = SMALL) -> str:
    """The error for a file, which must leave the network as it was."""
    backbone = network(layout)
    before = copied(backbone)
    with pytest.raises(SpecError) as error:
        load_backbone_weights(backbone, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    return str(error.value)


def v2_state() -> dict[str, Tensor]:
    return swin_state(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2)


def half(path: Path, content: bytes) -> None:
    path.write_bytes(content[: len(content) // 2])


def with_value(name: str, value: float) -> dict[str, Tensor]:
    state = network().state_dict()
    state[name].view(-1)[-1] = value
    return state


MUST_HOLD = (
    "it must hold tensors by name, at the top or under model, state_dict, model_state_dict, "
    "model_ema, ema_state_dict, ema; got"
)
PLAIN = "it must hold plain tensors by name, nothing else; got"
KNOWN = (
    "the names in it must be those of a scratch-nas backbone or detector, a Swin (V1) or a ResNet "
    "(50 and deeper) of "
    "torchvision or timm; got"
)
RUNS = f"reading it would run code (argparse.Namespace), so it was not loaded; {INSTEAD}"
FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("gone.pt", lambda path: None, "there is no such file"),
    "folder": ("folder.pt", lambda path: path.mkdir(), "there is no such file"),
    "suffix": (
        "weights.bin",
        lambda path: path.touch(),
        "the name must end in .safetensors, .pt, .pth",
    ),
    "empty": ("empty.pt", lambda path: path.touch(), "it is cut off or damaged (EOFError: )"),
    "text": (
        "text.pt",
        lambda path: path.write_text("words"),
        "it is damaged, or a pickle that could run code",
    ),
    "half a file": (
        "half.pt",
        lambda path: half(path, written(path, network().state_dict()).read_bytes()),
        "it is cut off or damaged (",
    ),
    "half safetensors": (
        "half.safetensors",
        lambda path: half(path, save(network().state_dict())),
        "it is cut off or damaged (Error while deserializing: incomplete metadata, file not fully "
        "covered)",
    ),
    "no safetensors": (
        "text.safetensors",
        lambda path: path.write_text("words"),
        "it is cut off or damaged (Error while deserializing: header too small)",
    ),
    "arguments beside": (
        "args.pt",
        lambda path: torch.save({"model": {}, "args": argparse.Namespace()}, path),
        RUNS,
    ),
    "no names": ("list.pt", lambda path: torch.save([torch.ones(1)], path), f"{MUST_HOLD} list"),
    "nothing": ("nothing.pt", lambda path: torch.save({"model": {}}, path), f"{MUST_HOLD} nothing"),
    "numbers": ("numbers.pt", lambda path: torch.save({"epoch": 3}, path), f"{PLAIN} 'epoch', int"),
    "numbered": (
        "numbered.pt",
        lambda path: torch.save({0: torch.ones(1)}, path),
        f"{PLAIN} 0, a tensor (torch.float32, ",
    ),
    "complex": (
        "complex.pt",
        lambda path: torch.save({"a.b": torch.ones(1, dtype=torch.complex64)}, path),
        f"{PLAIN} 'a.b', a tensor (torch.complex64, torch.strided, cpu)",
    ),
    "sparse": (
        "sparse.pt",
        lambda path: torch.save({"a.b": torch.ones(1).to_sparse()}, path),
        f"{PLAIN} 'a.b', a tensor (torch.float32, torch.sparse_coo, cpu)",
    ),
    "empty tensors": (
        "meta.pt",
        lambda path: torch.save({"a.b": torch.ones(1, device="meta")}, path),
        f"{PLAIN} 'a.b', a tensor (torch.float32, torch.strided, meta)",
    ),
    "one number a million million times": (
        "large.pt",
        lambda path: torch.save({"a.b": torch.ones(1).as_strided((2**20, 2**20), (0, 0))}, path),
        f"{PLAIN} 'a.b', a tensor (torch.float32, torch.strided, cpu)",
    ),
    "metadata": (
        "odd.safetensors",
        lambda path: save_file(network().state_dict(), path, {"image_mean": "[", "image_std": "["}),
        "its metadata are no statistics of images: Input data was truncated",
    ),
    "not a number": (
        "nan.pt",
        lambda path: torch.save(with_value("stages.2.blocks.1.mlp.0.weight", float("nan")), path),
        "weights must be finite; stages.2.blocks.1.mlp.0.weight has values that are not",
    ),
    "infinite": (
        "inf.safetensors",
        lambda path: save_file(with_value("stem.norm.running_var", float("inf")), path),
        "weights must be finite; stem.norm.running_var has values that are not",
    ),
    "too large for float32": (
        "large.pt",
        lambda path: torch.save(
            {**network().state_dict(), "norms.2.bias": torch.tensor([1e300], dtype=torch.float64)},
            path,
        ),
        "weights must be finite; norms.2.bias has values that are not",
    ),
    "integers": (
        "int8.pt",
        lambda path: torch.save(
            {**network().state_dict(), "norms.2.bias": torch.ones(64, dtype=torch.int8)}, path
        ),
        "weights must be floating-point numbers; norms.2.bias is torch.int8",
    ),
    "strange names": (
        "strange.pt",
        lambda path: torch.save({"encoder.0.weight": torch.ones(1), "bias": torch.ones(1)}, path),
        f"{KNOWN} encoder.0 (+1)",
    ),
    "basic blocks": (
        "r18.pt",
        lambda path: torch.save(resnet18().state_dict(), path),
        f"{KNOWN} conv1 (+40)",
    ),
    "second Swin": ("v2.pt", lambda path: torch.save(v2_state(), path), f"{KNOWN} features.0.0 (+"),
    "other layout": (
        "swin.pt",
        lambda path: torch.save(swin_state(), path),
        "nothing of this torchvision Swin, T1-T1-T2-T1@16,32,64,128, fits "
        "C1-C2-C1-C1@32,64,128,256: taken over 0 of ",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, fault: str):
    name, write, words = FAULTS[fault]
    path = tmp_path / name
    write(path)
    said = refusal(path, "C1-C2-C1-C1@32" if fault == "other layout" else SMALL)
    start = f"weights {str(path)!r}: "
    assert said.startswith(start)
    assert "\n" not in said
    assert said.removeprefix(start).startswith(words), said


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = written(tmp_path / "backbone.pt", network().state_dict())
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert refusal(path) == f"weights {str(path)!r}: it cannot be read: Permission denied"


def test_a_scalar_where_a_tensor_belongs_is_a_misfit(tmp_path: Path):
    state = {**network().state_dict(), "stages.2.blocks.0.norm1.weight": torch.tensor(1.0)}
    state["stem.norm.num_batches_tracked"] = torch.ones(3, dtype=torch.long)
    report = load_backbone_weights(network(), written(tmp_path / "backbone.pt", state))
    assert report.misfits == (("stages.2.blocks.0.norm1.weight", (), (64,)),)


def test_a_summary_of_nothing_but_the_count():
    assert WeightsReport("x", ("a.b",), (), (), ()).summary() == "taken over 1 of 1 tensors from x"
