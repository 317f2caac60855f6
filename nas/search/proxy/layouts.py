"""Which layouts a check of the proxy trains: spread over what the budget allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from nas.errors import StudyError
from nas.search.budget import Budget
from nas.search.feasibility import check_feasible
from nas.search.layout_filter import LayoutFilter
from search_spaces.layout import Layout

# layouts drawn to choose from; each may need a dozen predictions of memory where it is to use the
# budget
POOL = 256


def choose_layouts(
    proxy: Budget, full: Budget, count: int, kept: Iterable[Layout] = ()
) -> list[Layout]:
    """At least `count` layouts, or all there are, that fit into the budget by both recipes;
    ascending in FLOPs.

    They are chosen from `POOL` layouts drawn uniformly from what fits, by the search's seed, with
    those in `kept` that fit: the same request chooses the same layouts, and a larger `count` adds
    to those chosen before. See `spread`.

    Args:
        proxy, full: budgets of the two recipes, for the same space.
        count: how many.
        kept: layouts that were chosen before.

    Raises:
        StudyError: nothing fits, or fewer than two layouts do.
    """
    allowed, by_both = LayoutFilter(proxy, set), LayoutFilter(full, set)
    check_feasible(proxy)
    check_feasible(full)

    def fits(layout: Layout) -> bool:
        return layout in proxy.space and allowed.resolve(layout) == layout and by_both.fits(layout)

    before = [layout for layout in kept if fits(layout)]
    pool = dict.fromkeys(before)
    for parameters in allowed.remaining(proxy.spec.search.seed):
        layout = proxy.space.decode(parameters)
        if fits(layout):
            pool[layout] = None
        if len(pool) >= POOL:
            break
    if len(pool) < 2:
        raise StudyError(
            f"a ranking needs two layouts of space {proxy.space.name!r} that fit by both recipes; "
            f"there are {len(pool)}"
        )
    return spread([(layout, proxy.cost(layout).flops) for layout in pool], count, before)


def spread(
    pool: Sequence[tuple[Layout, int]], count: int, kept: Sequence[Layout] = ()
) -> list[Layout]:
    """Choose layouts that cover FLOPs and patterns.

    Args:
        pool: layouts and their FLOPs.
        count: how many to choose; all where the pool has fewer.
        kept: layouts that were chosen before, and are chosen again.

    The pool, sorted by FLOPs, is cut into `count` equal parts (sizes differ by one at most). Each
    part keeps its layouts in `kept`, or else gives the one of the pattern chosen least so far that
    is nearest to the part's middle. So no part is left out, and where every part has every pattern,
    no pattern is chosen twice more often than another.
    """
    ordered = [layout for layout, _ in sorted(pool, key=lambda pair: (pair[1], str(pair[0])))]
    count = min(count, len(ordered))
    seen: Counter[str] = Counter(layout.pattern for layout in kept)
    chosen: list[Layout] = []
    for part in range(count):
        begin, end = part * len(ordered) // count, (part + 1) * len(ordered) // count
        members = ordered[begin:end]
        if here := [layout for layout in members if layout in kept]:
            chosen += here
            continue
        middle = (len(members) - 1) / 2
        nearest = min(
            range(len(members)),
            key=lambda index: (seen[members[index].pattern], abs(index - middle)),
        )
        seen[members[nearest].pattern] += 1
        chosen.append(members[nearest])
    return chosen
