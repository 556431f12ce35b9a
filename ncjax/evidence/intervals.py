"""Intervals over seeds: Student's t, for means and for paired differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special


class Interval(NamedTuple):
    """A mean and its two-sided 95 % interval; infinite with one value."""

    mean: float
    low: float
    high: float


def mean(values: Sequence[float] | np.ndarray) -> Interval:
    """Mean of independent values with Student's t interval, mean +- t_{n-1, 0.975} s / sqrt(n)."""
    x = np.asarray(values, np.float64)
    centre = float(x.mean())
    if len(x) < 2:
        return Interval(centre, -math.inf, math.inf)
    half = float(special.stdtrit(len(x) - 1, 0.975) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(centre, centre - half, centre + half)


def mean_if_known(values: Sequence[float | None], of: Callable[[np.ndarray], Interval] = mean) -> list[float] | None:
    """`mean`, or another of these, ready for JSON; None where a value is not known."""
    return None if any(v is None for v in values) else list(of(np.asarray(values, np.float64)))


def ratio(values: Sequence[float] | np.ndarray) -> Interval:
    """Geometric mean of positive values, NC1 and its kin, with the interval of their logarithms.

    Infinite with one value; NaN where one is not positive.
    """
    x = np.asarray(values, np.float64)
    if not np.all(x > 0):
        return Interval(math.nan, math.nan, math.nan)
    return Interval(*(math.exp(y) if math.isfinite(y) else y for y in mean(np.log(x))))


def share(values: Sequence[float] | np.ndarray) -> Interval:
    """`mean` of shares, such as accuracies, its interval cut to [0, 1], outside which no mean lies; all of it for one."""
    found = mean(values)
    return Interval(found.mean, max(found.low, 0.0), min(found.high, 1.0))


def paired(values: Sequence[float], others: Sequence[float]) -> Interval:
    """The mean of values[i] - others[i], its interval over i."""
    return mean(np.asarray(values, np.float64) - np.asarray(others, np.float64))


def points(interval: Sequence[float | None], *, sign: bool = False) -> str:
    """Per cent without the sign %: '83.1 [82.0, 84.2]', '83.1 [–, –]' where one value has no interval; +4.2 with `sign`."""
    middle, low, high = (
        "–" if x is None or not math.isfinite(x) else format(round(100 * x, 1) + 0.0, ".1f") for x in interval
    )
    return f"{'+' if sign and not middle.startswith(('-', '–')) else ''}{middle} [{low}, {high}]"


def digits(found: Sequence[float | None] | None) -> str:
    """'0.19 [0.174, 0.206]', three digits; '–' where there is none, as with one seed."""
    if found is None:
        return "–"
    middle, low, high = ("–" if x is None or not math.isfinite(x) else f"{x:.3g}" for x in found)
    return f"{middle} [{low}, {high}]"


def signed(found: Sequence[float] | None) -> str:
    """'+0.71 [+0.20, +0.91]', of a correlation and its interval; '–' for None."""
    return "–" if found is None else f"{found[0]:+.2f} [{found[1]:+.2f}, {found[2]:+.2f}]"


def percent(interval: Sequence[float | None]) -> str:
    """'83.1 [82.0, 84.2] %'."""
    return f"{points(interval)} %"
