"""What scores of features share: class means and scatters in float64, from one pass, and what follows from them once.

A score that names `moments` among its arguments gets them; features beside them where it needs more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg, sparse

from ncjax.core.errors import UserError
from ncjax.core.types import Array

ROWS = 4096  # features in float64 at a time
Found = TypeVar("Found")


class Basis(NamedTuple):
    """Directions in which features vary: eigenvectors of a scatter, largest first, those of rounding left out."""

    values: Float[np.ndarray, " r"]  # eigenvalues of the scatter, a sum over examples
    vectors: Float[np.ndarray, "D r"]
    means: Float[np.ndarray, "K r"]  # class means in these directions


class Moments:
    """Of features [N, D] with labels of K classes that have examples.

    Args:
      features: [N, D].
      labels: [N] integers; classes are those that occur.

    Raises:
      UserError: fewer than two classes, features that are not finite, or no two that differ.
    """

    def __init__(self, features: Float[Array, "N D"], labels: Int[Array, " N"]):
        features, labels = np.asarray(features), np.asarray(labels)
        self.classes, self.labels, self.count = np.unique(labels, return_inverse=True, return_counts=True)
        self.size, self.width = features.shape
        if len(self.classes) < 2:
            raise UserError("examples of one class alone: at least two are needed")
        member = sparse.csr_matrix((np.ones(self.size), (self.labels, np.arange(self.size))))
        sums = np.zeros((len(self.classes), self.width))
        for at, x in chunks(features):
            sums += member[:, at] @ x
        if not np.isfinite(sums).all():
            raise UserError("features are not finite")
        self.mean = sums / self.count[:, None]  # [K, D]
        self.middle = sums.sum(0) / self.size  # [D]
        self.centred = None  # [N, D] features less their mean, where there are no more examples than features
        self.within = None  # [D, D] sum of (h - mu_k)(h - mu_k)', where there are
        self.quartic = 0.0  # sum of ||h - mean||^4
        if self.size <= self.width:
            self.centred = features.astype(np.float64) - self.middle
            self.quartic = float(np.square(np.square(self.centred).sum(1)).sum())
        else:
            self.within = np.zeros((self.width, self.width))
            for at, x in chunks(features):
                self.quartic += float(np.square(np.square(x - self.middle).sum(1)).sum())
                apart = x - self.mean[self.labels[at]]
                self.within += apart.T @ apart
        self._once: dict[str, Any] = {}

    @property
    def apart(self) -> Float[np.ndarray, "K D"]:
        """Class means less the mean of all examples."""
        return self.mean - self.middle

    @functools.cached_property
    def total(self) -> Basis:
        """Of sum (h - mean)(h - mean)', with the class means about that mean.

        Raises:
          UserError: no two features differ.
        """
        found = self._basis(self.centred, np.sqrt(self.count)[:, None] * self.apart, self.apart)
        if not len(found.values):
            raise UserError("no two features differ")
        return found

    @functools.cached_property
    def raw(self) -> Basis:
        """Of sum h h', with the class means as they are."""
        whole = None if self.centred is None else self.centred + self.middle
        return self._basis(whole, np.sqrt(self.count)[:, None] * self.mean, self.mean)

    def _basis(self, rows: np.ndarray | None, between: np.ndarray, means: np.ndarray) -> Basis:
        if rows is not None:
            values, left = _eigen(rows @ rows.T, max(self.size, self.width))
            vectors = rows.T @ (left / np.sqrt(values))
        else:
            assert self.within is not None
            values, vectors = _eigen(self.within + between.T @ between, max(self.size, self.width))
        # Signs are nobody's: turned so that the largest loading is positive, as in scikit-learn's PCA.
        largest = np.abs(vectors).argmax(0)
        vectors = vectors * np.sign(vectors[largest, np.arange(len(values))])
        return Basis(values, vectors, means @ vectors)

    @functools.cached_property
    def within_total(self) -> Float[np.ndarray, "r r"]:
        """sum (h - mu_k)(h - mu_k)' in the directions of `total`."""
        if self.within is not None:
            return self.total.vectors.T @ self.within @ self.total.vectors
        x = self.centred_in(self.total.vectors.shape[1])
        apart = x - self.total.means[self.labels]
        return apart.T @ apart

    def centred_in(self, components: int, features: Array | None = None) -> Float[np.ndarray, "N c"]:
        """Features less their mean in the first directions of `total`, at most as many as there are.

        Args:
          components: that many.
          features: where there are more examples than features, which are not kept then.
        """
        vectors = self.total.vectors[:, :components]
        if self.centred is not None:
            return self.centred @ vectors
        assert features is not None
        return np.concatenate([(x - self.middle) @ vectors for _, x in chunks(np.asarray(features))])

    def once(self, name: str, compute: Callable[[], Found]) -> Found:
        """What several scores need of the same features, computed for the first of them."""
        if name not in self._once:
            self._once[name] = compute()
        return self._once[name]


def chunks(features: np.ndarray) -> Iterator[tuple[slice, Float[np.ndarray, "n D"]]]:
    """(rows, features in float64), some at a time."""
    for start in range(0, len(features), ROWS):
        at = slice(start, min(start + ROWS, len(features)))
        yield at, features[at].astype(np.float64)


def _eigen(gram: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues above rounding, largest first, and their vectors."""
    values, vectors = linalg.eigh(gram, driver="evd", check_finite=False)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > max(values[0], 0) * size * np.finfo(np.float64).eps
    return values[kept], vectors[:, kept]
