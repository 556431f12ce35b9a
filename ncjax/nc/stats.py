"""One mergeable, centred statistic of labelled features, from which every collapse metric is read.

Raw second moments (E h^2 - mu^2) lose everything exactly where features collapse: spread 0.001 at norm 14 gives zero in
float32. So moments are kept about the class means, and batches are joined by the update of Chan, Golub & LeVeque (1979).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ncjax.types import Array

_matmul = functools.partial(jnp.matmul, precision="highest")


class ClassStats(NamedTuple):
    """Class-wise moments of features [N, D] with labels in [0, K)."""

    count: Array  # [K] examples seen of each class
    mean: Array  # [K, D] class means mu_k (zero where count is 0)
    spread: Array  # [K] sum_i ||h_{k,i} - mu_k||^2
    scatter: Array  # [D, D] sum_k sum_i (h_{k,i} - mu_k)(h_{k,i} - mu_k)^T over classes


def empty(num_classes: int, dim: int, dtype: jnp.dtype = jnp.float32) -> ClassStats:
    """The statistic of no examples: the identity of `merge`. Holds K + K*D + K + D*D scalars."""
    zeros = functools.partial(jnp.zeros, dtype=dtype)
    return ClassStats(zeros(num_classes), zeros((num_classes, dim)), zeros(num_classes), zeros((dim, dim)))


def merge(a: ClassStats, b: ClassStats) -> ClassStats:
    """The statistic of both sets of examples. Associative and commutative up to rounding."""
    count = a.count + b.count
    share = b.count / jnp.maximum(count, 1)
    delta = b.mean - a.mean  # [K, D]
    weight = a.count * share  # [K] n_a n_b / (n_a + n_b), zero if either is empty
    weighted = weight[:, None] * delta
    return ClassStats(
        count,
        jnp.where(a.count[:, None] > 0, a.mean + share[:, None] * delta, b.mean),
        a.spread + b.spread + jnp.sum(weighted * delta, axis=1),
        a.scatter + b.scatter + _matmul(weighted.T, delta),
    )


def observe(stats: ClassStats, features: Array, labels: Array, mask: Array | None = None) -> ClassStats:
    """Adds a batch.

    Args:
      stats: what was seen before.
      features: [N, D], any float type; moments are kept in the dtype of `stats`.
      labels: [N] integers in [0, K).
      mask: [N], 0 for rows to ignore.
    """
    num_classes, dtype = stats.count.shape[0], stats.mean.dtype
    features = features.astype(dtype)
    mask = jnp.ones(labels.shape, dtype) if mask is None else mask.astype(dtype)
    # A masked row may hold anything, NaN included, so it is replaced rather than multiplied by zero.
    features = jnp.where(mask[:, None] > 0, features, 0)
    by_class = functools.partial(jax.ops.segment_sum, segment_ids=labels, num_segments=num_classes)
    count = by_class(mask)
    per_class = 1 / jnp.maximum(count, 1)[:, None]
    mean = by_class(features) * per_class
    # A second look at the residuals removes the rounding of the first mean.
    mean = mean + by_class((features - mean[labels]) * mask[:, None]) * per_class
    residual = (features - mean[labels]) * mask[:, None]  # [N, D]
    spread = by_class(jnp.sum(jnp.square(residual), axis=1))
    return merge(stats, ClassStats(count, mean, spread, _matmul(residual.T, residual)))


def usable(stats: ClassStats) -> Array:
    """[K] booleans: classes with at least two examples. Others have no spread and are left out of every metric."""
    return stats.count >= 2
