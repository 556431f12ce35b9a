"""Rank correlations over variants of a recipe, each run with several seeds; intervals resample both.

Means over seeds are correlated over variants. A bootstrap draw takes as many variants as there are, with replacement, and
within each as many seeds, and correlates again; the interval is that of percentiles (2.5 % to 97.5 %). With few variants
such intervals are too narrow rather than too wide, so a verdict on fewer than `FEWEST` is not given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ncjax.core.types import Array
from ncjax.evidence.correlation import spearman

FEWEST = 5  # variants, of fewer no correlation is told
DRAWS = 2000

Table = Sequence[Sequence[float]]  # [variants][seeds], variants may differ in seeds


class Resampled(NamedTuple):
    """A statistic over variants and its 95 % interval."""

    value: float
    low: float
    high: float
    variants: int
    runs: int


def partial(x: Array, y: Array, z: Array) -> float:
    """Spearman's partial correlation of x and y given z, (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)).

    NaN where one side is constant, or a function of z by rank.
    """
    xy, xz, yz = spearman(x, y), spearman(x, z), spearman(y, z)
    left = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / np.sqrt(left) if left > 1e-12 else float("nan")


def resampled(tables: Sequence[Table], statistic: Callable[..., float], *, seed: int = 0) -> Resampled | None:
    """A statistic of means over seeds, one number a variant and table, with its interval.

    Args:
      tables: quantities by variant and seed; those of one variant have the same seeds, and are resampled together.
      statistic: of as many arrays [variants] as there are tables.
      seed: of the draws.

    Returns:
      None with fewer than `FEWEST` variants, or where the statistic is not defined for them, or for most draws.
    """
    arrays = [[np.asarray(row, np.float64) for row in table] for table in tables]
    count = len(arrays[0])
    if count < FEWEST:
        return None
    value = statistic(*(np.array([row.mean() for row in table]) for table in arrays))
    if not np.isfinite(value):
        return None
    rng, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        chosen = rng.integers(0, count, count)
        seeds = [rng.integers(0, len(arrays[0][v]), len(arrays[0][v])) for v in chosen]
        drawn = [np.array([table[v][s].mean() for v, s in zip(chosen, seeds, strict=True)]) for table in arrays]
        found.append(statistic(*drawn))
    known = np.asarray(found)[np.isfinite(found)]
    if len(known) < DRAWS / 2:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return Resampled(float(value), float(low), float(high), count, sum(map(len, arrays[0])))


def judged(found: Resampled | None, *, weakest: float) -> str:
    """What a claim of a positive correlation comes to.

    "supported" if the whole interval is above 0, "contradicted" if all of it is below, "not supported" if it is below
    `weakest`, the weakest that would be worth the claim; else "undecided".
    """
    if found is None:
        return "undecided"
    if found.low > 0:
        return "supported"
    return "contradicted" if found.high < 0 else "not supported" if found.high < weakest else "undecided"
