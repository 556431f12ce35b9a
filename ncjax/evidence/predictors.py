"""What predicts transfer across networks, and whether that stands.

A rank correlation over a dozen networks is easily had: from one network that is apart from all others, from the best of
many predictors, or because larger networks are better at everything. So beside each correlation, with its interval over
families (`evidence.correlation`), stand what it is without each network in turn, the correlation of *differences*, what
the best of as many predictors would reach by chance, and the difference to controls that have not seen the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from ncjax.core.types import Array
from ncjax.evidence import intervals
from ncjax.evidence.correlation import Correlation, Interval, over_families, over_networks, spearman, weighted_kendall

PERMUTATIONS = 5000
Measure = Callable[[Array, Array], float]


class Pool(NamedTuple):
    """Predictors and accuracies of the same B networks on some targets."""

    values: dict[str, dict[str, np.ndarray]]  # {predictor: {target: [B]}}, NaN where there is none
    accuracy: dict[str, np.ndarray]  # {target: [B]}
    networks: list[str]  # [B]
    families: list[str]  # [B] of each network
    signs: dict[str, int]  # {predictor: 1 where more of it promises a higher accuracy, else -1}

    def pairs(self, name: str, rows: np.ndarray | slice = slice(None)) -> list[tuple[np.ndarray, np.ndarray]]:
        """(predictor, accuracy) of every target."""
        return [(self.values[name][t][rows], y[rows]) for t, y in self.accuracy.items()]


def pool(
    values: dict[str, dict[str, dict[str, float | None]]],
    accuracy: dict[str, dict[str, float]],
    families: dict[str, str],
    signs: dict[str, int],
) -> Pool:
    """A pool of plain numbers.

    Args:
      values: {target: {network: {predictor: value}}}.
      accuracy: {target: {network: accuracy}}.
      families: {network: its family}.
      signs: as in `Pool`; names the predictors.
    """
    networks = list(families)

    def column(target: str, name: str) -> np.ndarray:
        found = [values[target][n].get(name) for n in networks]
        return np.array([np.nan if v is None else v for v in found], np.float64)

    return Pool(
        values={name: {t: column(t, name) for t in accuracy} for name in signs},
        accuracy={t: np.array([many[n] for n in networks], np.float64) for t, many in accuracy.items()},
        networks=networks,
        families=list(families.values()),
        signs=signs,
    )


ELSEWHERE = "elsewhere"  # a predictor of no score: see `with_rank_elsewhere`


def with_rank_elsewhere(found: Pool) -> Pool:
    """The pool with one predictor more: a network's mean rank by accuracy on the *other* targets, the worst being 1.

    It knows how networks fare in general, and nothing of the target: what a table of benchmarks tells. As it was with fewer
    than two targets.
    """
    if len(found.accuracy) < 2:
        return found
    ranks = {t: scipy.stats.rankdata(y) for t, y in found.accuracy.items()}
    other = {t: np.mean([r for u, r in ranks.items() if u != t], axis=0) for t in ranks}
    return found._replace(values={**found.values, ELSEWHERE: other}, signs={**found.signs, ELSEWHERE: 1})


def on_a_scale(x: Array) -> np.ndarray:
    """Logarithms where all known values are positive, and the largest over ten times the smallest; else as they are."""
    known = np.asarray(x)[np.isfinite(x)]
    if len(known) and known.min() > 0 and known.max() > 10 * known.min():
        return np.log(x)
    return np.asarray(x)


def differences(x: Array, y: Array) -> float:
    """Correlation, over all pairs of networks, of differences in x with differences in y.

    sum_{i<j} (x_i - x_j)(y_i - y_j) / sqrt(sum (x_i - x_j)^2 sum (y_i - y_j)^2), which is Pearson's correlation of x and y:
    it asks how much better a network is, not only which is. NaN where one side is constant.
    """
    a, b = np.asarray(x) - np.mean(x), np.asarray(y) - np.mean(y)
    scale = np.sqrt(np.sum(a * a) * np.sum(b * b))
    return float(np.sum(a * b) / scale) if scale > 0 else float("nan")


def mean_of_targets(pairs: Sequence[tuple[np.ndarray, np.ndarray]], measure: Measure) -> float:
    """A correlation's mean over targets, of networks that have both numbers."""
    known = [(x[k], y[k]) for x, y in pairs for k in [np.isfinite(x) & np.isfinite(y)]]
    return float(np.mean([measure(x, y) if len(x) > 2 else np.nan for x, y in known]))


def without_one(found: Pool, name: str) -> dict[str, Any] | None:
    """The mean weighted Kendall correlation without each network in turn.

    Returns:
      "low", "high": the extremes, each (value, network left out); "flips": networks without which it changes its sign.
      None where it is not defined.
    """
    everything = mean_of_targets(found.pairs(name), weighted_kendall)
    each = {
        n: mean_of_targets(found.pairs(name, np.arange(len(found.networks)) != i), weighted_kendall)
        for i, n in enumerate(found.networks)
    }
    if not np.isfinite([everything, *each.values()]).all():
        return None
    low, high = min(each, key=lambda n: each[n]), max(each, key=lambda n: each[n])
    return {
        "low": [each[low], low],
        "high": [each[high], high],
        "flips": [n for n, value in each.items() if value * everything <= 0],
    }


def best_by_chance(found: Pool, *, seed: int = 0) -> dict[str, Any] | None:
    """How often the best of m predictors would reach as high a mean Spearman correlation if none said anything.

    Accuracies are permuted over networks, alike for all targets, `PERMUTATIONS` times, and the largest correlation in the
    promised direction is kept (max-T; Westfall & Young, 1993). Networks of one family being alike, p is too small by some.

    Returns:
      "best": the predictor, "value": its correlation in that direction, "p", "of": m. Predictors that lack a network are no
      part. None where there are none left.
    """
    whole = [n for n in found.values if all(np.isfinite(x).all() and np.ptp(x) > 0 for x in found.values[n].values())]
    if not whole or len(found.networks) < 3:
        return None

    def ranks(x: np.ndarray) -> np.ndarray:
        r = scipy.stats.rankdata(x, axis=-1)
        r = r - r.mean(axis=-1, keepdims=True)
        return r / np.sqrt(np.sum(r * r, axis=-1, keepdims=True))

    order = np.argsort(np.random.default_rng(seed).random((PERMUTATIONS, len(found.networks))), axis=1)
    order = np.concatenate([np.arange(len(found.networks))[None], order])  # the true one first
    total = np.zeros((len(order), len(whole)))
    for target, y in found.accuracy.items():
        if np.ptp(y) == 0:
            return None
        x = np.stack([found.signs[n] * ranks(found.values[n][target]) for n in whole])
        total += ranks(y)[order] @ x.T / len(found.accuracy)
    best = int(np.argmax(total[0]))
    p = (1 + np.sum(total[1:].max(axis=1) >= total[0, best] - 1e-12)) / (1 + PERMUTATIONS)
    return {"best": whole[best], "value": float(total[0, best]), "p": float(p), "of": len(whole)}


def against(found: Pool, name: str, other: str) -> Interval | None:
    """By how much a predictor's mean weighted Kendall correlation, in its direction, exceeds another's, over families.

    Over the networks that both have a value of, on every target. None with too few.
    """
    if name not in found.values or other not in found.values:
        return None
    known = np.ones(len(found.networks), bool)
    for n in (name, other):
        known &= np.all([np.isfinite(x) for x in found.values[n].values()], axis=0)

    def difference(rows: np.ndarray) -> float:
        if rows.sum() < 3:
            return np.nan
        of = [found.signs[n] * mean_of_targets(found.pairs(n, rows), weighted_kendall) for n in (name, other)]
        return of[0] - of[1]

    return over_families(difference, known, found.families, scale=2.0)


def regret(found: Pool, name: str) -> dict[str, Any] | None:
    """Accuracy lost, target by target, by taking the network that a predictor puts first; the mean with a t interval.

    The better of equals is not known to it: of several first ones the mean counts. None where it is defined for fewer than
    two networks of a target.

    Returns:
      "by_target", "mean" (mean, low, high), and "missing": networks without a value, on the target that has most of them.
    """
    lost, missing = {}, 0
    for target, y in found.accuracy.items():
        x = found.signs[name] * found.values[name][target]
        known = np.isfinite(x)
        if known.sum() < 2:
            return None
        missing = max(missing, int((~known).sum()))
        lost[target] = float(y.max() - y[known & (x == x[known].max())].mean())
    return {"by_target": lost, "mean": list(intervals.mean(list(lost.values()))), "missing": missing}


def summary(found: Pool) -> dict[str, dict[str, Any]]:
    """{predictor: {"spearman", "weighted_kendall", "differences": {target, "mean": correlation}, "without", "regret"}}."""
    measures: dict[str, Measure] = {
        "spearman": spearman,
        "weighted_kendall": weighted_kendall,
        "differences": differences,
    }
    out: dict[str, dict[str, Any]] = {}
    for name in found.values:
        out[name] = {"without": without_one(found, name), "regret": regret(found, name)}
        for how, measure in measures.items():
            pairs = found.pairs(name)
            if how == "differences":
                pairs = [(on_a_scale(x), y) for x, y in pairs]
            each: dict[str, Correlation | None] = {
                t: over_networks([pair], measure, families=found.families)
                for t, pair in zip(found.accuracy, pairs, strict=True)
            }
            out[name][how] = {**each, "mean": over_networks(pairs, measure, families=found.families)}
    return out
