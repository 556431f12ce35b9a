"""Rank correlations over variants of a recipe, each run with several seeds; intervals resample both.

Means over seeds are correlated over variants. A bootstrap draw takes as many variants as there are, with replacement, and
within each as many seeds, and correlates again; the interval is that of percentiles (2.5 % to 97.5 %). With five to
twelve variants they leave out a true correlation of zero in 5 to 8 % of cases, and a strong one in fewer; a verdict on
fewer than `FEWEST` is not given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from ncjax.core.types import Array

FEWEST = 5  # variants, of fewer no correlation is told
DRAWS = 20_000  # so many that their own noise moves no verdict

Table = Sequence[Sequence[float]]  # [variants][seeds], variants may differ in seeds


class Resampled(NamedTuple):
    """A statistic over variants and its 95 % interval."""

    value: float
    low: float
    high: float
    variants: int
    runs: int


def spearman(x: Array, y: Array) -> np.ndarray:
    """Spearman's rho along the last axis; NaN where one side is constant."""
    a, b = (r - r.mean(axis=-1, keepdims=True) for r in (scipy.stats.rankdata(z, axis=-1) for z in (x, y)))
    scale = np.sqrt(np.sum(a * a, axis=-1) * np.sum(b * b, axis=-1))
    return np.where(scale > 0, np.sum(a * b, axis=-1) / np.where(scale > 0, scale, 1), np.nan)


def partial(x: Array, y: Array, z: Array) -> np.ndarray:
    """Spearman's partial correlation of x and y given z, (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)).

    NaN where one side is constant, or a function of z by rank.
    """
    xy, xz, yz = spearman(x, y), spearman(x, z), spearman(y, z)
    left = (1 - xz**2) * (1 - yz**2)
    return np.where(left > 1e-12, (xy - xz * yz) / np.sqrt(np.where(left > 1e-12, left, 1)), np.nan)


def resampled(tables: Sequence[Table], statistic: Callable[..., np.ndarray], *, seed: int = 0) -> Resampled | None:
    """A statistic of means over seeds, one number a variant and table, with its interval.

    Args:
      tables: quantities by variant and seed; those of one variant have the same seeds, and are resampled together.
      statistic: of as many arrays [..., variants] as there are tables; [...].
      seed: of the draws.

    Returns:
      None with fewer than `FEWEST` variants, or where the statistic is not defined for them, or for most draws.
    """
    sizes = np.array([len(row) for row in tables[0]])
    count = len(sizes)
    if count < FEWEST:
        return None
    value = float(statistic(*(np.array([np.mean(row) for row in table]) for table in tables)))
    if not np.isfinite(value):
        return None
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, count, (DRAWS, count))
    drawn = (rng.random((DRAWS, count, sizes.max())) * sizes[chosen][..., None]).astype(int)
    real = np.arange(sizes.max()) < sizes[chosen][..., None]  # as many seeds as the variant has

    def means(table: Table) -> np.ndarray:
        padded = np.zeros((count, sizes.max()))
        for row, values in zip(padded, table, strict=True):
            row[: len(values)] = values
        return np.sum(np.where(real, padded[chosen[..., None], drawn], 0), axis=2) / sizes[chosen]

    found = statistic(*map(means, tables))
    known = found[np.isfinite(found)]
    if len(known) < DRAWS / 2:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return Resampled(value, float(low), float(high), count, int(sizes.sum()))


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
