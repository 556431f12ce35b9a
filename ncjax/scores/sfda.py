"""SFDA."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import linalg, sparse
from scipy.special import softmax

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.core.values import POSITIVE
from ncjax.scores.moments import Moments, chunks
from ncjax.scores.score import score

LEAST = 1e-10  # shrinkage


@score(label="SFDA", higher_is_better=True)
def sfda(features: Float[Array, "N D"], moments: Moments, strength: Annotated[float, POSITIVE] = 5.0) -> float:
    """Mean probability of the true class by a discriminant analysis of features that a first one has made harder.

    Fisher's discriminant with covariance (1 - s) S_W + s (tr S_W / D) I, s = max(exp(-5 l_max(S_W)), 1e-10), gives each
    image a probability p of its class, softened by a second softmax; its feature moves to p h + (1 - p) times the mean of
    the other classes' means; the same discriminant is fitted again (Shao et al., 2022).

    Args:
      features, moments: of the target's training images.
      strength: the 5.

    Raises:
      UserError: no two features of a class differ; or a within-class covariance without full rank, and next to no
        shrinkage: the images are told apart whatever the features are.
    """
    x = np.asarray(features)
    within = moments.within
    if within is None or moments.size - len(moments.classes) < moments.width:
        x, within = moments.centred_in(moments.width, features), moments.within_total
        middle, means = np.zeros(x.shape[1]), moments.total.means
    else:
        middle, means = moments.middle, moments.apart
    within = within / moments.size
    if not np.trace(within) > 0:
        raise UserError("no two features of a class differ")
    largest = float(linalg.eigvalsh(within, subset_by_index=[len(within) - 1] * 2)[0])
    shrinkage = max(float(np.exp(-strength * largest)), LEAST)
    if shrinkage <= 1e-6 and moments.size - len(moments.classes) < moments.width:
        raise UserError(
            f"{moments.size} examples of {moments.width} features and shrinkage {shrinkage:.0e}: told apart whatever they "
            "are"
        )
    first = _discriminant(within, means, moments, shrinkage)
    right = np.concatenate([softmax(first.probabilities(h - middle), axis=1)[_own(moments, at)] for at, h in chunks(x)])
    others = (means.sum(0) - means) / (len(means) - 1)

    def harder(at: slice, h: np.ndarray) -> np.ndarray:
        p = right[at, None]
        return p * (h - middle) + (1 - p) * others[moments.labels[at]]

    member = sparse.csr_matrix((np.ones(moments.size), (moments.labels, np.arange(moments.size))))
    sums, scatter = np.zeros_like(means), np.zeros_like(within)
    for at, h in chunks(x):
        sums += member[:, at] @ harder(at, h)
    moved = sums / moments.count[:, None]
    for at, h in chunks(x):
        apart = harder(at, h) - moved[moments.labels[at]]
        scatter += apart.T @ apart
    second = _discriminant(scatter / moments.size, moved, moments, shrinkage)
    return float(np.mean(np.concatenate([second.probabilities(harder(at, h))[_own(moments, at)] for at, h in chunks(x)])))


class _Discriminant(NamedTuple):
    weight: np.ndarray  # [K, D]
    bias: np.ndarray  # [K]

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        return softmax(x @ self.weight.T + self.bias, axis=1)


def _discriminant(within: np.ndarray, means: np.ndarray, moments: Moments, shrinkage: float) -> _Discriminant:
    """h' S^-1 mu_k - mu_k' S^-1 mu_k / 2 + log(n_k / N), S the shrunk covariance; its trace is over all D directions."""
    shrunk = (1 - shrinkage) * within
    shrunk[np.diag_indices_from(shrunk)] += shrinkage * np.trace(within) / moments.width
    weight = linalg.solve(shrunk, means.T, assume_a="pos", check_finite=False).T
    return _Discriminant(weight, -0.5 * np.sum(means * weight, axis=1) + np.log(moments.count / moments.size))


def _own(moments: Moments, at: slice) -> tuple[np.ndarray, np.ndarray]:
    """Indices of every image's own class."""
    own = moments.labels[at]
    return np.arange(len(own)), own
