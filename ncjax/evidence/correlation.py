"""Rank correlations between what predicts transfer and transfer itself, with bootstrap intervals over networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from ncjax.core.types import Array

DRAWS = 2000
FEWEST = 6  # networks: of fewer, resampling sees too few orders to give an interval


class Correlation(NamedTuple):
    """A rank correlation and its 95 % percentile interval."""

    value: float
    low: float
    high: float
    count: int  # networks with both numbers, in the target with fewest


def spearman(x: Array, y: Array) -> float:
    """Spearman's rho, the correlation of ranks; NaN where one side is constant."""
    a, b = stats.rankdata(x), stats.rankdata(y)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


def weighted_kendall(x: Array, y: Array) -> float:
    """Kendall's tau with hyperbolic weights by the rank of y (Vigna, 2015): order among the most accurate counts most."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    best_first = stats.rankdata(-np.asarray(y), method="ordinal") - 1
    tau, _ = stats.weightedtau(x, y, rank=best_first.astype(int))  # pyright: ignore[reportGeneralTypeIssues]
    return float(tau)  # pyright: ignore[reportArgumentType]


def over_networks(
    pairs: Sequence[tuple[Array, Array]], measure: Callable[[Array, Array], float], *, draws: int = DRAWS, seed: int = 0
) -> Correlation | None:
    """Mean over targets of a rank correlation across networks.

    The interval resamples networks, the same draw for every target: it is that of another choice of networks, not of
    targets. A draw in which a correlation is undefined (all its networks alike) is drawn again.

    Args:
      pairs: for each target (predictor [B], accuracy [B]) over the same B networks, NaN where a number is missing.
      measure: `spearman` or `weighted_kendall`.
      draws, seed: of the bootstrap.

    Returns:
      None with fewer than `FEWEST` networks, or a predictor that does not vary.
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
                    measure(x[rows[k[rows]]], y[rows[k[rows]]]) if k[rows].sum() > 2 else np.nan
                    for (x, y), k in zip(pairs, known, strict=True)
                ]
            )
        )

    everyone = np.arange(len(pairs[0][0]))
    value = mean(everyone)
    if not np.isfinite(value):
        return None
    rng, found = np.random.default_rng(seed), []
    for _ in range(4 * draws):
        drawn = mean(rng.choice(everyone, len(everyone)))
        if np.isfinite(drawn):
            found.append(drawn)
        if len(found) == draws:
            break
    low, high = np.percentile(found, [2.5, 97.5])
    return Correlation(value, float(low), float(high), fewest)
