"""Figures as people read them: memory in GiB, scores in per cent, durations."""

from __future__ import annotations

MIB, GIB = 2**20, 2**30


def gib(size_bytes: float) -> float:
    """Convert bytes to GiB, rounded to four decimals."""
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


def expected_text(mean: float | None, low: float | None, high: float | None) -> str:
    """A fraction in per cent and half of its interval, `31.2 ± 0.8`; empty for None."""
    if mean is None or low is None or high is None:
        return ""
    return f"{percent(mean)} ± {percent((high - low) / 2)}"


def gib_text(value: float | None) -> str:
    """GiB with two decimals, below 1 GiB with three; `-` for None."""
    return "-" if value is None else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def scaled_text(value: float | None, unit: float, decimals: int) -> str:
    """A number in multiples of `unit`, 1e6 for millions; `-` for None."""
    return "-" if value is None else f"{value / unit:.{decimals}f}"


def si_text(value: float) -> str:
    """A number with three digits and K, M, G or T: `3.14G`."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


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
