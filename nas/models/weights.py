"""Backbone weights that others trained, for networks that do not start from scratch: put into our
names, kept where they fit.

Understood are our own backbones and detectors, Swin Transformers of the first version (blocks of
the second compute something else) as torchvision and timm name them, whose older names are those of
the published code, and ResNets with bottlenecks, for which the two have the same names. Which of
them a file is, its names decide.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from nas.models.backbones import HybridBackbone
from nas.models.detectors.transform import ImageStatistics
from nas.models.weight_files import read_metadata, read_tensors, refusal

STAGES = range(4)
_COUNTER, _STATISTICS = ".num_batches_tracked", ".running_mean"
# Classifiers, and buffers that follow from the window.
_NO_BACKBONE = re.compile(r"(head|fc)\..*|.*\.(attn_mask|relative_position_index)")
_IN_BLOCKS = {
    ".attn.relative_position_bias_table": ".attention.position_table",
    ".attn.": ".attention.",
    ".mlp.fc1.": ".mlp.0.",
    ".mlp.fc2.": ".mlp.3.",
}
_BLOCK = re.compile(
    r"stages\.(\d)\.(?:blocks\.)?(\d+)\.(bn3|norm1)\.weight"
)  # one tensor of each, as long as it is wide


@dataclass(frozen=True)
class WeightsReport:
    """What became of a file's tensors. Names are the network's, but `unused` has the file's.

    `missing` and `misfits` keep their initialisation; `misfits` are names with the shape in the
    file and in the network. Counters of batch norms (`num_batches_tracked`) go with their layer and
    are not listed. `statistics` are those that images were normalised by when the weights were
    trained; None where the file does not say.
    """

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    misfits: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    statistics: ImageStatistics | None = None

    def summary(self) -> str:
        """One line for people, with the first layer of each sort."""
        total = len(self.loaded) + len(self.missing) + len(self.misfits)
        parts = [f"taken over {len(self.loaded)} of {total} tensors from {self.source}"]
        if self.missing:
            parts.append(f"not in the file: {_first_layer(self.missing)}")
        if self.misfits:
            name, theirs, ours = self.misfits[0]
            parts.append(
                f"does not fit: {name} {list(theirs)} instead of {list(ours)}{_more(self.misfits)}"
            )
        if self.unused:
            parts.append(f"has no place: {_first_layer(self.unused)}")
        return "; ".join(parts)


@dataclass(frozen=True)
class _Kind:
    """A kind of file: each of `marks` matches a name below `root`; `places` are beginnings of names
    there, theirs to ours.
    """

    source: str
    marks: tuple[str, ...]
    places: dict[str, str] = field(default_factory=dict)
    root: str = ""

    def recognises(self, names: Iterable[str]) -> bool:
        below = [name.removeprefix(self.root) for name in names if name.startswith(self.root)]
        return all(any(re.fullmatch(mark, name) for name in below) for mark in self.marks)

    def in_our_names(self, names: Iterable[str]) -> dict[str, str]:
        """Our names to theirs, of what belongs to a backbone."""
        below = [name for name in names if name.startswith(self.root)]
        return {
            self._ours(name.removeprefix(self.root)): name
            for name in below
            if not _NO_BACKBONE.fullmatch(name)
        }

    def _ours(self, name: str) -> str:
        place = next((place for place in self.places if name.startswith(place)), "")
        name = self.places.get(place, "") + name.removeprefix(place)
        for theirs, ours in _IN_BLOCKS.items():
            name = name.replace(theirs, ours)
        return name


def _timm_places(merging_of: int) -> dict[str, str]:
    """`merging_of`: 0 where a stage begins with its merging, 1 where it ends with that of the
    next.
    """
    stem = {
        "patch_embed.proj.": "stem.conv.",
        "patch_embed.norm.": "stem.norm.",
        "norm.": "norms.3.",
    }
    stages = [
        (f"layers{dot}{stage}", stage) for stage in STAGES for dot in "._"
    ]  # `features_only` has layers_0
    blocks = {f"{name}.blocks.": f"stages.{stage}.blocks." for name, stage in stages}
    return (
        stem
        | blocks
        | {f"{name}.downsample.": f"stages.{stage + merging_of}.merging." for name, stage in stages}
    )


_TORCHVISION = {
    **{"features.0.0.": "stem.conv.", "features.0.2.": "stem.norm.", "norm.": "norms.3."},
    **{f"features.{2 * stage + 1}.": f"stages.{stage}.blocks." for stage in STAGES},
    **{f"features.{2 * stage}.": f"stages.{stage}.merging." for stage in STAGES[1:]},
}
_RESNET = {
    "conv1.": "stem.conv.",
    "bn1.": "stem.norm.",
    **{f"layer{stage + 1}.": f"stages.{stage}." for stage in STAGES},
}
_OURS = r"stages\.\d\.(0\.conv3|blocks\.0\.attention\.qkv)\.weight"
_TABLE = r"\.0\.attn\.relative_position_bias_table"  # the second version of Swin has none
_KINDS = (
    _Kind("scratch-nas backbone", (_OURS,)),
    _Kind("scratch-nas detector", (_OURS,), root="backbone.backbone."),
    _Kind("torchvision Swin", (r"features\.1" + _TABLE,), _TORCHVISION),
    _Kind(
        "timm Swin with older names",
        (r"layers[._]0\.blocks" + _TABLE, r"layers[._]0\.downsample\..*"),
        _timm_places(1),
    ),
    _Kind("timm Swin", (r"layers[._]0\.blocks" + _TABLE,), _timm_places(0)),
    _Kind("torchvision or timm ResNet", (r"layer1\.0\.conv3\.weight",), _RESNET),
)
# Of DataParallel and DDP, torch.compile, Lightning, mmdetection, averages of weights.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "network.", "net.", "ema.", "encoder.")
MOST_WRAPPERS = 5
_KNOWN = (
    "a scratch-nas backbone or detector, a Swin (V1) or a ResNet (50 and deeper) of torchvision "
    "or timm"
)


@torch.no_grad()
def load_backbone_weights(backbone: HybridBackbone, path: Path) -> WeightsReport:
    """Take over what has the name and the shape of a tensor of a backbone, in place, as float32.

    Running statistics go with their batch norm; the last norm of a Swin classifier is the output
    norm of stage 4.

    Args:
        backbone: initialised; what the file does not have stays as it is.
        path: a file that `nas.models.weight_files.read_tensors` reads.

    Raises:
        SpecError: the file cannot be read, is of no known kind, has values that are not finite, or
            nothing that fits; the backbone is as before.
    """
    state = read_tensors(path)
    unwrapped = _unwrapped(state)
    try:
        said = ImageStatistics.of_weights(state) or ImageStatistics.of_metadata(read_metadata(path))
    except ValueError as error:
        raise refusal(path, str(error)) from None
    kind = _kind_of(unwrapped)
    if not kind:
        raise refusal(
            path, f"the names in it must be those of {_KNOWN}; got {_first_layer([*state])}"
        )
    names = {ours: unwrapped[theirs] for ours, theirs in kind.in_our_names(unwrapped).items()}
    found = {ours: _finite(path, theirs, state[theirs]) for ours, theirs in names.items()}
    network = backbone.state_dict()
    report = _compare(kind.source, names, found, network)
    if not report.loaded:
        raise refusal(
            path,
            f"nothing of this {kind.source}, {_layout(found)}, fits {_layout(network)}: "
            f"{report.summary()}",
        )
    for name in (*report.loaded, *_counters(report, found, network)):
        network[name].copy_(found[name])
    return replace(report, statistics=said)


def _kind_of(names: Iterable[str]) -> _Kind | None:
    return next((kind for kind in _KINDS if kind.recognises(names)), None)


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Names without what training programs put before them, to the names as they are."""
    found = {name: name for name in names}
    for _ in range(MOST_WRAPPERS):
        begun = Counter(prefix for name in found for prefix in _WRAPPERS if name.startswith(prefix))
        if _kind_of(found) or not begun:
            break
        ((prefix, _),) = begun.most_common(1)
        found = {
            name.removeprefix(prefix): whole
            for name, whole in found.items()
            if name.startswith(prefix)
        }
    return found


def _compare(
    source: str,
    names: Mapping[str, str],
    found: Mapping[str, Tensor],
    network: Mapping[str, Tensor],
) -> WeightsReport:
    listed = {
        name: tuple(tensor.shape) for name, tensor in network.items() if not name.endswith(_COUNTER)
    }
    theirs = {
        name: tuple(tensor.shape) for name, tensor in found.items() if not name.endswith(_COUNTER)
    }
    both = [name for name in listed if name in theirs]
    return WeightsReport(
        source,
        loaded=tuple(name for name in both if listed[name] == theirs[name]),
        missing=tuple(name for name in listed if name not in theirs),
        unused=tuple(names[name] for name in theirs if name not in listed),
        misfits=tuple(
            (name, theirs[name], listed[name]) for name in both if listed[name] != theirs[name]
        ),
    )


def _counters(
    report: WeightsReport, found: Mapping[str, Tensor], network: Mapping[str, Tensor]
) -> list[str]:
    names = [
        name.replace(_STATISTICS, _COUNTER) for name in report.loaded if name.endswith(_STATISTICS)
    ]
    return [name for name in names if name in found and found[name].shape == network[name].shape]


def _finite(path: Path, name: str, tensor: Tensor) -> Tensor:
    """As float32; counters as they are."""
    if name.endswith(_COUNTER):
        return tensor
    if not tensor.is_floating_point():
        raise refusal(path, f"weights must be floating-point numbers; {name} is {tensor.dtype}")
    if not (tensor := tensor.float()).isfinite().all():
        raise refusal(path, f"weights must be finite; {name} has values that are not")
    return tensor


def _layout(tensors: Mapping[str, Tensor]) -> str:
    """Kinds, depths and widths of the stages, as a layout's text has them."""
    blocks = sorted(
        (int(m[1]), int(m[2]), m[3], tensors[m[0]].numel())
        for m in map(_BLOCK.fullmatch, tensors)
        if m
    )
    last = {
        stage: f"{'C' if leaf == 'bn3' else 'T'}{block + 1}" for stage, block, leaf, _ in blocks
    }
    widths = {stage: str(width) for stage, _, _, width in blocks}
    return f"{'-'.join(last.values())}@{','.join(widths.values())}"


def _first_layer(names: Sequence[str]) -> str:
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    return layers[0] + _more(layers)


def _more(items: Sequence[object]) -> str:
    return f" (+{len(items) - 1})" if len(items) > 1 else ""
