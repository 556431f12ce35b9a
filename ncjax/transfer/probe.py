"""Linear probes: multinomial logistic regression on fixed features, its regularisation chosen on validation."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ncjax.core.types import Array
from ncjax.transfer import group_lasso
from ncjax.transfer.logistic import MAX_STEPS, Show, Solution, solve, span_of

L2_GRID = (1e-1, 1e-2, 1e-3, 1e-4)  # from strong to weak, each warm-started from the one before
L2_ENDS = (1e3, 1e-7)  # as far as `fit` widens a path whose best is at an end
FIT_TOLERANCE = 1e-5  # in `fit`: with more features than examples a looser one is met before weak strengths differ
FRACTIONS = (0.05, 0.2, 0.5, 1.0)  # of the features, the largest group norms first


class Probe(NamedTuple):
    """A fitted probe on raw (not standardised) features."""

    weight: np.ndarray  # [K, D]
    bias: np.ndarray  # [K]
    l2: float  # chosen regularisation, on standardised features
    train_accuracy: float
    val_accuracy: float  # NaN without a validation split
    gradient: float = 0.0  # largest entry of the gradient where the chosen fit stopped
    steps: int = 0  # L-BFGS steps over the whole path
    kept: float = 1.0  # share of features with weights
    at_end: bool = False  # whether the strength is the strongest or the weakest that may be tried


def accuracy(weight: Array, bias: Array, features: Array, labels: Array) -> float:
    """Share of argmax(W h + b) = label."""
    return float(np.mean(np.argmax(features @ weight.T + bias, axis=1) == labels))


Pair = tuple[np.ndarray, np.ndarray]  # features [N, D], labels [N]


def fit(
    train: Pair,
    val: Pair | None,
    num_classes: int,
    *,
    l2_grid: tuple[float, ...] = L2_GRID,
    keep: np.ndarray | None = None,
    tolerance: float = FIT_TOLERANCE,
    max_steps: int = MAX_STEPS,
    show: Show | None = None,
) -> Probe:
    """Fits a probe to features standardised on the training split; its strength is the best on validation.

    Where the best is an end of the path, the path goes on by factors of ten: to stronger ones while they are no worse, to
    weaker ones, which take long, while they are better. Of equals the one nearest to the first path is taken, and there the
    strongest.

    Args:
      train, val: (features [N, D], labels [N]); without `val` the middle of the grid is used.
      num_classes: K.
      l2_grid: regularisation strengths tried first, strongest first, see `solve`.
      keep: [D] booleans, the features that may have weights; None for all.
      tolerance, max_steps, show: see `solve`.
    """
    features, labels = train
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    chosen = np.arange(features.shape[1]) if keep is None else np.flatnonzero(keep)
    if val is None:
        l2_grid = (l2_grid[len(l2_grid) // 2],)
    scaled = (features[:, chosen] - mean[chosen]) / std[chosen]

    span = span_of(scaled)

    def probes(l2_path: tuple[float, ...], start: Array | None = None) -> list[tuple[Probe, Array]]:
        path = solve(
            scaled,
            labels,
            num_classes,
            l2_path,
            start=start,
            tolerance=tolerance,
            max_steps=max_steps,
            show=show,
            span=span,
        )
        made = functools.partial(_probe, mean=mean, std=std, chosen=chosen, train=train, val=val)
        return [(made(found, l2), found.params) for l2, found in zip(l2_path, path, strict=True)]

    tried = probes(l2_grid)
    best = max((p for p, _ in tried), key=lambda p: p.val_accuracy) if val is not None else tried[0][0]
    if val is not None and len(l2_grid) > 1:
        (strongest, _), (weakest, end) = tried[0], tried[-1]
        if best.l2 == strongest.l2:
            while strongest.l2 < L2_ENDS[0] / 1.5 and strongest.val_accuracy >= best.val_accuracy:
                strongest, _ = (tried := [*tried, *probes((10 * strongest.l2,))])[-1]
                best = max(best, strongest, key=lambda p: p.val_accuracy)
        elif best.l2 == weakest.l2:
            while best.l2 == weakest.l2 and weakest.l2 > 1.5 * L2_ENDS[1]:
                weakest, end = (tried := [*tried, *probes((weakest.l2 / 10,), end)])[-1]
                best = max(best, weakest, key=lambda p: p.val_accuracy)
    return best._replace(
        steps=sum(p.steps for p, _ in tried),
        kept=1.0 if keep is None else float(np.mean(keep)),
        at_end=not L2_ENDS[1] * 1.5 < best.l2 < L2_ENDS[0] / 1.5,
    )


def _probe(
    found: Solution, l2: float, *, mean: np.ndarray, std: np.ndarray, chosen: np.ndarray, train: Pair, val: Pair | None
) -> Probe:
    """A solution on the chosen features, standardised, as a probe on raw ones."""
    params = np.asarray(found.params)
    weight = np.zeros((len(params), len(mean)), params.dtype)
    weight[:, chosen] = params[:, :-1] / std[chosen]
    bias = params[:, -1] - weight @ mean
    return Probe(
        weight=weight,
        bias=bias,
        l2=l2,
        train_accuracy=accuracy(weight, bias, *train),
        val_accuracy=accuracy(weight, bias, *val) if val is not None else float("nan"),
        gradient=float(found.gradient),
        steps=int(found.steps),
    )


def fit_sparse(
    train: Pair,
    val: Pair | None,
    num_classes: int,
    *,
    fractions: tuple[float, ...] = FRACTIONS,
    l2_grid: tuple[float, ...] = L2_GRID,
    show: Show | None = None,
) -> Probe:
    """Head2Toe's probe (Evci et al., 2022): features are ranked by group lasso, and how many to keep is validated.

    Args:
      train, val, num_classes, l2_grid, show: as for `fit`; without `val` the largest fraction is used.
      fractions: shares of the features to try.
    """
    features, labels = train
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    norms, pull = group_lasso.norms(jnp.asarray(scaled), jnp.asarray(labels, jnp.int32), num_classes, show)
    order = np.lexsort((-np.asarray(pull), -np.asarray(norms)))
    best = None
    for fraction in fractions if val is not None else fractions[-1:]:
        keep = np.zeros(features.shape[1], bool)
        keep[order[: max(1, round(fraction * len(order)))]] = True
        found = fit(train, val, num_classes, l2_grid=l2_grid, keep=keep, show=show)
        if best is None or found.val_accuracy > best.val_accuracy:
            best = found
    assert best is not None, "nothing to try"
    return best
