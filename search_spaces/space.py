"""A search space: the finite set of layouts that a search may draw from.

Samplers see `parameters()`, a few named lists of choices; `decode` turns one choice of each into a
`Layout`. `search_spaces.loading` reads spaces from YAML.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from search_spaces.errors import LayoutError, SpaceError, one_of
from search_spaces.layout import DEFAULT_CHANNELS, STAGES, Layout, Stage, doubled

MOST_LAYOUTS = 10**7
CONDITIONS: dict[str, Callable[[str], bool]] = {
    "C never after T": lambda kinds: "TC" not in kinds,
    "T never after C": lambda kinds: "CT" not in kinds,
}


@dataclass(frozen=True)
class SearchSpace:
    """All combinations of kinds, depths, channels and stems that meet the conditions.

    Args:
        name: what tables and studies call it.
        kinds: for each of the four stages, the kinds allowed.
        depths: for each of the four stages, the numbers of blocks allowed, ascending.
        channels: widths of the first stage; later stages double it.
        stems: stems allowed, as in `Layout`.
        conditions: names from `CONDITIONS`, all of which a pattern of kinds must meet.
        layout_defaults: fields of `Layout` that all layouts of the space have in common.
        defaults: keys of a search request that take these values where the request is silent.

    Raises:
        SpaceError: an empty choice, an unknown name, conditions that leave nothing, or more layouts
            than `MOST_LAYOUTS`.
    """

    name: str
    kinds: tuple[tuple[str, ...], ...]
    depths: tuple[tuple[int, ...], ...]
    channels: tuple[int, ...] = (DEFAULT_CHANNELS,)
    stems: tuple[str, ...] = ("auto",)
    conditions: tuple[str, ...] = ()
    layout_defaults: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for condition in self.conditions:
            if condition not in CONDITIONS:
                raise SpaceError(
                    f"space {self.name!r}: {one_of('a condition', condition, CONDITIONS)}"
                )
        if len(self.kinds) != STAGES or len(self.depths) != STAGES:
            raise SpaceError(
                f"space {self.name!r} must name {STAGES} stages; got {len(self.kinds)}"
            )
        if not self.patterns:
            raise SpaceError(
                f"space {self.name!r}: no pattern of kinds meets {', '.join(self.conditions)}"
            )
        try:
            for head in self._depth_families:
                depths = tuple(choices[0] for choices in self.depths)
                _layout(*head, depths, self._shared)
        except LayoutError as error:
            raise SpaceError(f"space {self.name!r}: {error}") from None
        if self._size > MOST_LAYOUTS:
            raise SpaceError(
                f"space {self.name!r} must have at most {MOST_LAYOUTS:,} layouts; got "
                f"{self._size:,}"
            )

    @cached_property
    def patterns(self) -> tuple[str, ...]:
        """Every allowed sequence of kinds, as `C-C-T-T`."""
        rules = [CONDITIONS[condition] for condition in self.conditions]
        strings = ("".join(kinds) for kinds in itertools.product(*self.kinds))
        return tuple("-".join(kinds) for kinds in strings if all(rule(kinds) for rule in rules))

    def parameters(self) -> dict[str, tuple[Any, ...]]:
        """List what a sampler chooses: name and choices of each parameter, in order.

        `pattern`, `depth_1` to `depth_4`, `channels` and `stem`; one with a single choice is left
        out.
        """
        return dict(self._parameters)

    @cached_property
    def _parameters(self) -> dict[str, tuple[Any, ...]]:
        choices: dict[str, tuple[Any, ...]] = {"pattern": self.patterns}
        choices |= {f"depth_{stage + 1}": depths for stage, depths in enumerate(self.depths)}
        choices |= {"channels": self.channels, "stem": self.stems}
        return {name: values for name, values in choices.items() if len(values) > 1}

    def decode(self, parameters: Mapping[str, Any]) -> Layout:
        """Build the layout of one choice for each of `parameters()`.

        Raises:
            SpaceError: a name or a value that this space does not offer.
        """
        offered = self.parameters()
        for name, value in parameters.items():
            if value not in offered.get(name, ()):
                choices = offered.get(name, tuple(offered))
                raise SpaceError(
                    one_of(f"parameter {name!r} of space {self.name!r}", value, choices)
                )
        if missing := sorted(set(offered) - set(parameters)):
            raise SpaceError(f"space {self.name!r} also needs a value for {', '.join(missing)}")
        return self._build(
            parameters.get("pattern", self.patterns[0]),
            parameters.get("channels", self.channels[0]),
            parameters.get("stem", self.stems[0]),
            depths=tuple(
                parameters.get(f"depth_{i + 1}", depths[0]) for i, depths in enumerate(self.depths)
            ),
        )

    def encode(self, layout: Layout) -> dict[str, Any]:
        """Find the first choice of parameters that `decode` turns into a layout.

        Raises:
            SpaceError: the layout is not in this space.
        """
        for pattern, channels, stem in self._depth_families:
            if pattern != layout.pattern or not all(
                d in allowed for d, allowed in zip(layout.depths, self.depths, strict=True)
            ):
                continue
            if self._build(pattern, channels, stem, depths=layout.depths) == layout:
                values = {"pattern": pattern, "channels": channels, "stem": stem}
                values |= {f"depth_{i + 1}": depth for i, depth in enumerate(layout.depths)}
                return {name: values[name] for name in self.parameters()}
        raise SpaceError(f"layout {layout} is not in space {self.name!r} ({self.describe()})")

    def __contains__(self, layout: Layout) -> bool:
        try:
            self.encode(layout)
        except SpaceError:
            return False
        return True

    def __len__(self) -> int:
        """Count the different layouts."""
        return self._size

    @property
    def _size(self) -> int:
        return math.prod(map(len, self.depths)) * len(self._depth_families)

    def __iter__(self) -> Iterator[Layout]:
        """Give every layout once."""
        for head in self._depth_families:
            for depths in itertools.product(*self.depths):
                yield self._build(*head, depths=depths)

    def shuffled(self, seed: int) -> Iterator[Layout]:
        """Give every layout once, in an order that depends on `seed` alone."""
        heads, counts = self._depth_families, [len(depths) for depths in self.depths]
        order = list(range(len(self)))
        random.Random(seed).shuffle(order)
        for index in order:
            depths = []
            for choices, count in zip(reversed(self.depths), reversed(counts), strict=True):
                index, position = divmod(index, count)
                depths.append(choices[position])
            yield self._build(*heads[index], depths=tuple(reversed(depths)))

    def shallowest(self) -> Iterator[Layout]:
        """Give, for every choice of the other parameters, the layout with the smallest depths; none
        in the space needs less memory than the least of these.
        """
        for head in self._depth_families:
            yield self._build(*head, depths=tuple(min(depths) for depths in self.depths))

    def deepest(self) -> Iterator[Layout]:
        """Give, for every choice of the other parameters, the layout with the largest depths; none
        in the space needs more memory than the most of these.
        """
        for head in self._depth_families:
            yield self._build(*head, depths=tuple(max(depths) for depths in self.depths))

    def describe(self) -> str:
        """Describe patterns, depths and channels in one line."""
        depths = " / ".join(_span(choices) for choices in self.depths)
        return (
            f"patterns {', '.join(self.patterns)}; depths {depths}; channels "
            f"{', '.join(map(str, self.channels))}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Write the space in its YAML form; `space_from_dict` reads it back."""
        stages = [
            {"kinds": list(k), "depths": list(d)}
            for k, d in zip(self.kinds, self.depths, strict=True)
        ]
        return {
            "name": self.name,
            "stages": stages,
            "channels": list(self.channels),
            "stems": list(self.stems),
            "conditions": list(self.conditions),
            "layout": dict(self.layout_defaults),
            "defaults": dict(self.defaults),
        }

    @cached_property
    def _depth_families(self) -> list[tuple[str, int, str]]:
        """Pattern, channels and stem of every group of layouts that differ in depth alone, equal
        networks once.
        """
        groups: dict[Layout, tuple[str, int, str]] = {}
        for head in itertools.product(self.patterns, self.channels, self.stems):
            groups.setdefault(_layout(*head, (1, 1, 1, 1), self._shared), head)
        return list(groups.values())

    @cached_property
    def _shared(self) -> tuple[tuple[str, Any], ...]:
        return tuple(self.layout_defaults.items())

    def _build(self, pattern: str, channels: int, stem: str, *, depths: tuple[int, ...]) -> Layout:
        return _known_layout(pattern, channels, stem, depths, self._shared)


def _layout(
    pattern: str,
    channels: int,
    stem: str,
    depths: tuple[int, ...],
    shared: tuple[tuple[str, Any], ...],
) -> Layout:
    stages = tuple(
        Stage(kind, depth, width)
        for kind, depth, width in zip(pattern.split("-"), depths, doubled(channels), strict=True)
    )
    fields = dict(shared)
    if stages[0].kind != "C" or stem in ("patch", "dsod"):
        fields.pop("stem_width", None)
    return Layout(stages, stem=stem, **fields)


_known_layout = lru_cache(maxsize=100_000)(_layout)  # samplers ask for the same ones again


def _span(choices: tuple[int, ...]) -> str:
    step = choices[1] - choices[0] if len(choices) > 1 else 0
    if len(choices) < 3 or any(b - a != step for a, b in itertools.pairwise(choices)):
        return ", ".join(map(str, choices))
    return f"{choices[0]} to {choices[-1]}" + (f" by {step}" if step > 1 else "")
