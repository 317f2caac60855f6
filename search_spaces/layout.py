"""A candidate: which of the four stages are convolutional (C) and which are transformer (T), how
deep, how wide.

    C2-C2-T12-T4                         four stages, stage widths 96, 192, 384, 768
    T2-T2-T18-T2@128                     the width of the first stage, doubled from stage to stage
    C2-C2-C14-T5@256,512,1024,768        the width of every stage
    C1-C1-T2-T1@16+window=8+norm=gn      whatever else differs from the default

The text form is complete: it parses back to an equal `Layout`. Two spellings of one network give
equal layouts with one `layout_id`, because fields that such a network does not have (the window of
an all-C layout) are set to their defaults.

Source of the grammar and of the default widths: Hong et al., CVPR 2022, sections 4.2 and 5.1
(`C2-C2-T12-T4`, "#Channel").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

from search_spaces.choices import KINDS, NORMS, STEMS
from search_spaces.errors import LayoutError, one_of, quoted

DEFAULT_CHANNELS = 96
STAGES = 4
MOST_BLOCKS, MOST_WIDTH = 9999, 99_999  # of a stage; what the text form has digits for
_TRUTH = {"true": True, "false": False}
_EXAMPLE = "for example C2-C2-T12-T4 or T2-T2-T6-T2@128"
_TEXT = re.compile(r"(?P<stages>[^@+]*)(?:@(?P<widths>[^+]*))?(?P<options>(?:\+.*)?)", re.DOTALL)


@dataclass(frozen=True)
class Stage:
    """One stage of a backbone: blocks of one kind at one resolution.

    Args:
        kind: `C` for convolutional blocks, `T` for transformer blocks.
        depth: number of blocks, at least 1, at most `MOST_BLOCKS`.
        width: output channels, a multiple of 4, at most `MOST_WIDTH`.

    Raises:
        LayoutError: a field out of its range.
    """

    kind: str
    depth: int
    width: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise LayoutError(one_of("the kind of a stage", self.kind, KINDS))
        if not _whole(self.depth) or not 1 <= self.depth <= MOST_BLOCKS:
            raise LayoutError(
                "the depth of a stage must be a whole number of blocks, at least 1, at most "
                f"{MOST_BLOCKS}; got {quoted(self.depth)}"
            )
        if not _whole(self.width) or not 4 <= self.width <= MOST_WIDTH or self.width % 4:
            raise LayoutError(
                "the width of a stage must be a multiple of 4 (a C block has a quarter of it "
                f"inside), at most {MOST_WIDTH}; got {quoted(self.width)}"
            )


@dataclass(frozen=True)
class Layout:
    """A backbone, described completely; immutable, hashable, equal when the network is equal.

    Args:
        stages: four stages, at strides 4, 8, 16 and 32.
        stem: `resnet` (7x7/2 convolution, norm, ReLU, 3x3/2 max-pool), `patch` (4x4/4 convolution,
            layer norm), `dsod` (three 3x3 convolutions with norm and ReLU, the first of stride 2,
            2x2/2 max-pool) or `auto`: `resnet` in front of a C stage, `patch` in front of a T
            stage.
        stem_width: channels of a ResNet stem in front of a C stage; default 64, or the width of a
            narrower first stage. Every other stem has the width of the first stage.
        head_dim: channels of one attention head; a stage whose width it does not divide takes the
            largest divisor below.
        window: side of the attention windows, in positions.
        mlp_ratio: hidden width of a T block's MLP over the width of the stage.
        norm: `bn`, `gn` or `syncbn`, in the stem and the C blocks. T blocks always have layer norm.
        dense: every stage from the third on is given the outputs of all stages before it, not of
            the last one alone.

    Raises:
        LayoutError: a field out of its range.
    """

    stages: tuple[Stage, ...]
    stem: str = "auto"
    stem_width: int | None = None
    head_dim: int = 32
    window: int = 7
    mlp_ratio: float = 4
    norm: str = "bn"
    dense: bool = False

    def __post_init__(self) -> None:
        if len(self.stages) != STAGES:
            raise LayoutError(f"a layout has {STAGES} stages, {_EXAMPLE}; got {len(self.stages)}")
        object.__setattr__(self, "stages", tuple(self.stages))
        self._check_fields()
        for name, value in self._canonical().items():
            object.__setattr__(self, name, value)

    def _check_fields(self) -> None:
        if self.stem not in STEMS:
            raise LayoutError(one_of("stem", self.stem, STEMS))
        if self.norm not in NORMS:
            raise LayoutError(one_of("norm", self.norm, NORMS))
        for name, low in (("head_dim", 1), ("window", 2), ("stem_width", 4)):
            value = getattr(self, name)
            if not (name == "stem_width" and value is None) and (not _whole(value) or value < low):
                raise LayoutError(
                    f"{name} must be a whole number, at least {low}; got {quoted(value)}"
                )
        if not isinstance(self.dense, bool):
            raise LayoutError(f"dense must be true or false; got {quoted(self.dense)}")
        if not isinstance(self.mlp_ratio, (int, float)) or not 0 < self.mlp_ratio <= 64:
            raise LayoutError(
                f"mlp_ratio must be a number above 0, at most 64; got {quoted(self.mlp_ratio)}"
            )

    def _canonical(self) -> dict[str, Any]:
        """Fields that others decide, and defaults of those that this network does not have."""
        first, kinds = self.stages[0], {stage.kind for stage in self.stages}
        stem = self.stem if self.stem != "auto" else ("resnet" if first.kind == "C" else "patch")
        free_stem = stem == "resnet" and first.kind == "C"
        default_width = min(64, first.width) if free_stem else first.width
        if self.stem_width not in (None, default_width) and not free_stem:
            raise LayoutError(
                "stem_width is free only for a resnet stem in front of a C stage; here it must "
                f"be {default_width}, "
                f"the width of the first stage; got {self.stem_width}"
            )
        fixed: dict[str, Any] = {"stem": stem, "stem_width": self.stem_width or default_width}
        if "T" not in kinds:
            fixed |= {"window": 7, "mlp_ratio": 4, "head_dim": 32}
        else:
            dims = self._head_dims(self.head_dim)
            fixed |= {
                "head_dim": 32 if dims == self._head_dims(32) else max(dims),
                "mlp_ratio": _plain(self.mlp_ratio),
            }
        if "C" not in kinds and stem == "patch":
            fixed["norm"] = "bn"
        return fixed

    def _head_dims(self, head_dim: int) -> list[int]:
        return [
            largest_divisor(stage.width, head_dim) for stage in self.stages if stage.kind == "T"
        ]

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels of the four stages."""
        return tuple(stage.width for stage in self.stages)

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of the four stages."""
        return tuple(stage.depth for stage in self.stages)

    @cached_property
    def pattern(self) -> str:
        """The kinds of the four stages: `C-C-T-T`."""
        return "-".join(stage.kind for stage in self.stages)

    @cached_property
    def layout_id(self) -> str:
        """Twelve hexadecimal digits, equal for equal networks, stable when layouts learn new
        options.
        """
        return hashlib.sha256(str(self).encode()).hexdigest()[:12]

    def with_depths(self, depths: Sequence[int]) -> Layout:
        """Copy the layout with other numbers of blocks, one for each stage."""
        stages = tuple(
            replace(stage, depth=depth) for stage, depth in zip(self.stages, depths, strict=True)
        )
        return replace(self, stages=stages)

    def heads(self, stage: int) -> int:
        """Count the attention heads of a T stage: its width over the channels of a head.

        Args:
            stage: index of the stage, from 0.
        """
        return self.widths[stage] // self.head_width(stage)

    def head_width(self, stage: int) -> int:
        """Count the channels of one attention head of a T stage: the largest divisor of its width
        that is at most `head_dim`.

        Args:
            stage: index of the stage, from 0.
        """
        return largest_divisor(self.widths[stage], self.head_dim)

    def __str__(self) -> str:
        text = "-".join(f"{stage.kind}{stage.depth}" for stage in self.stages)
        if self.widths != doubled(self.widths[0]):
            text += "@" + ",".join(map(str, self.widths))
        elif self.widths[0] != DEFAULT_CHANNELS:
            text += f"@{self.widths[0]}"
        plain = Layout(self.stages)
        return text + "".join(
            f"+{name}={str(getattr(self, name)).lower()}"
            for name in _OPTIONS
            if getattr(self, name) != getattr(plain, name)
        )

    def to_dict(self) -> dict[str, Any]:
        """Write the layout in the long form, for JSON and YAML: every field by name."""
        return asdict(self) | {"stages": [asdict(stage) for stage in self.stages]}

    @classmethod
    def from_dict(cls, long: Mapping[str, Any]) -> Layout:
        """Read the long form.

        Args:
            long: fields by name. `stages` is a list of `{kind, depth, width}`; a `width` that is
                left out follows from `channels`, the width of the first stage, doubled per stage.

        Raises:
            LayoutError: an unknown or missing key, or a field out of its range.
        """
        keys = {"stages", "channels", *_OPTIONS}
        if unknown := sorted(set(long) - keys):
            raise LayoutError(one_of("a key of a layout", unknown[0], sorted(keys)))
        stages, channels = long.get("stages"), long.get("channels", DEFAULT_CHANNELS)
        if not isinstance(stages, Iterable) or isinstance(stages, (str, Mapping)):
            raise LayoutError(
                f"the long form of a layout needs `stages`, a list of {STAGES}; got "
                f"{quoted(stages)}"
            )
        stages = list(stages)
        if len(stages) != STAGES:
            raise LayoutError(f"a layout has {STAGES} stages, {_EXAMPLE}; got {len(stages)}")
        built = [
            _stage_from(stage, width)
            for stage, width in zip(stages, _doubling(channels), strict=True)
        ]
        return cls(
            tuple(built), **{name: long[name] for name in _OPTIONS if long.get(name) is not None}
        )

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read the text form: `C2-C2-T12-T4@96+window=8`.

        Raises:
            LayoutError: the grammar does not allow the text, or a field is out of its range.
        """
        match = _TEXT.fullmatch(text.strip())
        if not match:
            raise LayoutError(
                f"a layout is four stages such as C2 joined by '-', {_EXAMPLE}; got {quoted(text)}"
            )
        kinds = [_kind_and_depth(part, text) for part in match["stages"].split("-")]
        if len(kinds) != STAGES:
            raise LayoutError(
                f"a layout has {STAGES} stages, {_EXAMPLE}; got {len(kinds)} in {quoted(text)}"
            )
        widths = _parse_widths(match["widths"], text)
        stages = tuple(
            Stage(kind, depth, width) for (kind, depth), width in zip(kinds, widths, strict=True)
        )
        return cls(stages, **_parse_options(match["options"], text))


_OPTIONS = tuple(field.name for field in fields(Layout) if field.name != "stages")


def doubled(channels: int) -> tuple[int, ...]:
    """Compute the widths of the four stages by the default rule: `channels` times 1, 2, 4, 8."""
    return tuple(channels * 2**stage for stage in range(STAGES))


def largest_divisor(width: int, limit: int) -> int:
    """Find the largest divisor of `width` that is at most `limit`."""
    return next(divisor for divisor in range(min(width, limit), 0, -1) if width % divisor == 0)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number


def _doubling(channels: object) -> tuple[int, ...]:
    if not isinstance(channels, int) or isinstance(channels, bool):
        raise LayoutError(
            f"channels must be a whole number, the width of the first stage; got {quoted(channels)}"
        )
    return doubled(channels)


def _stage_from(stage: object, width: int) -> Stage:
    if not isinstance(stage, Mapping) or not {"kind", "depth"} <= set(stage) <= {
        "kind",
        "depth",
        "width",
    }:
        raise LayoutError(
            f"a stage in the long form has kind, depth and perhaps width; got {quoted(stage)}"
        )
    return Stage(**{"width": width, **stage})


def _kind_and_depth(part: str, text: str) -> tuple[str, int]:
    match = re.fullmatch(r"([A-Za-z])([0-9]{1,4})", part)
    if not match:
        raise LayoutError(
            f"a stage is a kind ({' or '.join(KINDS)}) and a depth, {_EXAMPLE}; got "
            f"{quoted(part)} in {quoted(text)}"
        )
    return match[1].upper(), int(match[2])


def _parse_widths(part: str | None, text: str) -> tuple[int, ...]:
    if part is None:
        return doubled(DEFAULT_CHANNELS)
    numbers = part.split(",")
    if len(numbers) not in (1, STAGES) or not all(
        re.fullmatch(r"[0-9]{1,5}", number) for number in numbers
    ):
        raise LayoutError(
            f"'@' takes the width of the first stage or of all {STAGES}: @96 or @96,192,384,768; "
            f"got {quoted(text)}"
        )
    widths = tuple(map(int, numbers))
    return widths if len(widths) == STAGES else doubled(widths[0])


def _parse_options(part: str, text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for item in part.split("+")[1:]:
        name, equals, value = item.partition("=")
        if name not in _OPTIONS:
            raise LayoutError(
                f"{one_of('an option of a layout', name, _OPTIONS)} in {quoted(text)}"
            )
        if not equals or name in options:
            raise LayoutError(
                f"an option of a layout is written once, as +name=value; got {quoted(item)} in "
                f"{quoted(text)}"
            )
        options[name] = _option(name, value)
    return options


def _option(name: str, value: str) -> str | bool | float:
    if name in ("stem", "norm"):
        return value
    return _TRUTH.get(value, value) if name == "dense" else _number(name, value)


def _number(name: str, value: str) -> float:
    try:
        return _plain(float(value))
    except (ValueError, OverflowError):
        raise LayoutError(f"{name} must be a number; got {quoted(value)}") from None
