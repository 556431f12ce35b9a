"""Rank correlations between what predicts transfer and transfer itself, with intervals over families of networks.

Networks of one family (EfficientNet-Lite 0 to 2; ResNets of one source that differ in depth) are no independent draws:
taken for such, a nominal 95 % interval leaves out a true zero in up to 16 % of the cases. So what is resampled is
families. There are few of them, and percentiles of a bootstrap over them are too narrow still (12 %); the jackknife that
leaves out a family at a time, with Student's t on Fisher's scale, keeps what it says. `bench/correlation_coverage.py`
simulates all three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy
from scipy import special

from ncjax.core.types import Array

FEWEST, FEWEST_FAMILIES = 6, 4  # networks and families; of fewer, no interval says anything


class Correlation(NamedTuple):
    """A rank correlation and its 95 % interval."""

    value: float
    low: float
    high: float
    count: int  # networks with both numbers, in the target with fewest
    families: int  # that these are of


def spearman(x: Array, y: Array) -> float:
    """Spearman's rho, the correlation of ranks; NaN where one side is constant."""
    a, b = scipy.stats.rankdata(x), scipy.stats.rankdata(y)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


def weighted_kendall(x: Array, y: Array) -> float:
    """Kendall's tau with hyperbolic weights by the rank of y (Vigna, 2015): order among the most accurate counts most."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    best_first = scipy.stats.rankdata(-np.asarray(y), method="ordinal") - 1
    tau, _ = scipy.stats.weightedtau(x, y, rank=best_first.astype(int))  # pyright: ignore[reportGeneralTypeIssues]
    return float(tau)  # pyright: ignore[reportArgumentType]


def jackknife(value: float, without: Sequence[float], count: int = 0) -> tuple[float, float]:
    """95 % interval of a correlation from its values with each of G families left out.

    Args:
      value, without: over all, and without each family.
      count: networks that the correlation is over; 0 for a mean of correlations, which stays on its own scale, cut to
        [-1, 1].

    On Fisher's scale z = atanh r: z +- t_{G-1, 0.975} s with s^2 = (G - 1)/G sum (z_(g) - mean z_(g))^2 (Efron &
    Tibshirani, 1993, ch. 11; clusters: Cameron & Miller, 2015).
    """
    each, groups = np.asarray(without), len(without)
    if count:  # one is the half of a step of Spearman's rho above its next value
        almost_one = 1 - 6 / (count * (count**2 - 1))
        value = float(np.arctanh(np.clip(value, -almost_one, almost_one)))
        each = np.arctanh(np.clip(each, -almost_one, almost_one))
    half = special.stdtrit(groups - 1, 0.975) * np.sqrt((groups - 1) / groups * np.sum(np.square(each - each.mean())))
    low, high = value - half, value + half
    return (float(np.tanh(low)), float(np.tanh(high))) if count else (max(float(low), -1.0), min(float(high), 1.0))


class Interval(NamedTuple):
    """A statistic over networks and its 95 % interval."""

    value: float
    low: float
    high: float
    families: int


def over_families(
    of: Callable[[np.ndarray], float],
    known: np.ndarray,
    families: Sequence[str] | None,
    *,
    count: int = 0,
    scale: float = 1.0,
) -> Interval | None:
    """A statistic of some networks with its jackknife interval over families.

    Args:
      of: of rows [B] booleans.
      known: [B] which networks take part.
      families: [B] of each network; None for one each.
      count: as for `jackknife`.
      scale: the largest magnitude that the statistic can have.

    Returns:
      None with fewer than `FEWEST_FAMILIES`, or where it, or one without a family, is undefined.
    """
    names = np.asarray(families if families is not None else [str(i) for i in range(len(known))])
    present = np.unique(names[known])
    if len(present) < FEWEST_FAMILIES:
        return None
    value, without = of(known), [of(known & (names != family)) for family in present]
    if not np.isfinite([value, *without]).all():
        return None
    low, high = jackknife(value / scale, [w / scale for w in without], count)
    return Interval(value, scale * low, scale * high, len(present))


def over_networks(
    pairs: Sequence[tuple[Array, Array]],
    measure: Callable[[Array, Array], float],
    *,
    families: Sequence[str] | None = None,
) -> Correlation | None:
    """Mean over targets of a rank correlation across networks.

    The interval is that of another choice of families of networks, not of targets.

    Args:
      pairs: for each target (predictor [B], accuracy [B]) over the same B networks, NaN where a number is missing.
      measure: `spearman` or `weighted_kendall`.
      families: [B] of each network; None for one each.

    Returns:
      None with fewer than `FEWEST` networks or `FEWEST_FAMILIES` families, or where the predictor does not vary, be it
      without one of them.
    """
    pairs = [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in pairs]
    known = [np.isfinite(x) & np.isfinite(y) for x, y in pairs]
    fewest = min((int(k.sum()) for k in known), default=0)
    if fewest < FEWEST:
        return None

    def mean(rows: np.ndarray) -> float:
        return float(
            np.mean(
                [
                    measure(x[k & rows], y[k & rows]) if (k & rows).sum() > 2 else np.nan
                    for (x, y), k in zip(pairs, known, strict=True)
                ]
            )
        )

    found = over_families(mean, np.any(known, axis=0), families, count=fewest)
    return None if found is None else Correlation(found.value, found.low, found.high, fewest, found.families)


def mean_of(values: Sequence[float], *, families: Sequence[str] | None = None) -> Correlation | None:
    """Mean of correlations, one a network.

    Args:
      values: [B], NaN where there is none.
      families: [B] of each network; None for one each.

    Returns:
      As for `over_networks`.
    """
    each = np.asarray(values, np.float64)
    known = np.isfinite(each)
    if known.sum() < FEWEST:
        return None
    found = over_families(lambda rows: float(each[rows].mean()) if rows.any() else np.nan, known, families)
    return None if found is None else Correlation(found.value, found.low, found.high, int(known.sum()), found.families)
