"""Sizes of memory as people write them, in bytes as code wants them; figures as people read
them.
"""

from __future__ import annotations

import re

from nas.errors import SpecError

MIB, GIB = 2**20, 2**30
_UNITS = {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")


def parse_bytes(text: str) -> int:
    """Bytes of `16GiB`, `16GB` or `16384MiB`.

    Raises:
        SpecError: no unit, an unknown unit, or nothing left.
    """
    match = _SIZE.fullmatch(str(text))
    units = {unit.lower(): size for unit, size in _UNITS.items()}
    if not match or match[2].lower() not in units:
        raise SpecError(
            f"a size of memory is a number and a unit ({', '.join(_UNITS)}), for example 16GiB; "
            f"got {text!r}"
        )
    size = int(float(match[1]) * units[match[2].lower()])
    if size <= 0:
        raise SpecError(f"a size of memory must be above 0; got {text!r}")
    return size


def gib(size_bytes: float) -> float:
    """GiB, to the precision of a table (1 MiB is 0.001 GiB)."""
    return round(size_bytes / GIB, 4)


def percent(fraction: float | None) -> str:
    """A fraction as tables print it: per cent with one decimal, without the sign; `-` for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def in_percent(fraction: float | None) -> float | None:
    """A fraction as a number of per cent, for axes of plots; None stays None."""
    return None if fraction is None else 100 * fraction


def signed(fraction: float | None) -> str:
    """A difference of fractions in percentage points with its sign; `-` for None."""
    return "-" if fraction is None else f"{100 * fraction:+.1f}"


def interval_text(low: float | None, high: float | None) -> str:
    """An interval of differences of fractions, in percentage points; `-` where there is none."""
    return "-" if low is None else f"{signed(low)} to {signed(high)}"


def gib_text(value: float | None) -> str:
    """GiB with two decimals, below 1 GiB with three; `-` for None."""
    return "-" if value is None else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def duration_text(seconds: float) -> str:
    """A time in seconds (below 100 s), minutes (below 100 min) or hours, with two digits."""
    value, unit = (
        (seconds, "s")
        if seconds < 100
        else (seconds / 60, "min")
        if seconds < 6000
        else (seconds / 3600, "h")
    )
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def duration_range_text(low_s: float, high_s: float) -> str:
    """A time that is only known to lie between two ends; one time where both read the same."""
    low, high = duration_text(low_s), duration_text(high_s)
    return low if low == high else f"{low} to {high}"
