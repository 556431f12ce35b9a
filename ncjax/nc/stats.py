"""One mergeable, centred statistic of labelled features, from which the collapse metrics are read.

Raw second moments (E h^2 - mu^2) lose everything exactly where features collapse: spread 0.001 at norm 14 gives zero in
float32. So moments are kept about the class means and joined by the update of Chan, Golub & LeVeque (1979), and a class
mean is kept as a sum of two floats, anchor + shift: the anchor is an example of the class, so that h - anchor is exact
or nearly so however far from the origin the class lies, and the shift has the precision of the spread, not of the norm.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.nc.kinds import check_kind, expect

SCATTER_UP_TO = 4096  # widest features for which `empty` keeps the D x D scatter unless told otherwise (64 MB float32)

TERMS = 128  # of a class, on average, that a float32 sum adds one after another

matmul = functools.partial(jnp.matmul, precision="highest")


class ClassStats(NamedTuple):
    """Class-wise moments of features [N, D] with labels in [0, K)."""

    count: Float[Array, " K"]  # examples seen of each class
    anchor: Float[Array, "K D"]  # a point near each class (zero where count is 0)
    shift: Float[Array, "K D"]  # class mean mu_k less its anchor
    spread: Float[Array, " K"]  # sum_i ||h_{k,i} - mu_k||^2
    bad: Float[Array, " K"]  # examples with NaN or infinite features: where there are any, the moments are NaN
    scatter: Float[Array, "D D"] | None  # sum_k sum_i (h_{k,i} - mu_k)(h_{k,i} - mu_k)^T over classes, if it is kept

    @property
    def mean(self) -> Float[Array, "K D"]:
        """[K, D] class means mu_k, rounded to one float."""
        return self.anchor + self.shift


def empty(num_classes: int, dim: int, dtype: jnp.dtype = jnp.float32, *, scatter: bool | None = None) -> ClassStats:
    """The statistic of no examples: the identity of `merge`.

    Args:
      num_classes, dim: K and D.
      dtype: of the moments.
      scatter: whether to keep the D x D scatter, from which NC1 is read without a second look. It costs 2 D^2
        operations an example and D^2 scalars. Default: up to D = 4096. Without it: 3 K + 2 K D scalars in all.

    Raises:
      UserError: K or D is no whole number from 1, or the dtype no type of real numbers.
    """
    for name, value in (("num_classes", num_classes), ("dim", dim)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value < 1 << 31:
            raise UserError(f"{name}={value!r}: expected an integer from 1")
    try:
        real = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        real = False
    if not real:
        raise UserError(f"dtype={dtype!r}: expected a type of real numbers, such as jnp.float32")
    zeros = functools.partial(jnp.zeros, dtype=dtype)
    scatter = dim <= SCATTER_UP_TO if scatter is None else scatter
    return ClassStats(
        zeros(num_classes),
        zeros((num_classes, dim)),
        zeros((num_classes, dim)),
        zeros(num_classes),
        zeros(num_classes),
        zeros((dim, dim)) if scatter else None,
    )


def by_class(values: Num[Array, " N *rest"], labels: Int[Array, " N"], num_classes: int) -> Num[Array, " K *rest"]:
    """[K, ...] sums of values [N, ...] over the examples of each class; the same bits every time."""

    def scatter_add(values: Array, labels: Array) -> Array:
        # A float32 sum of many equal terms, one after another, drifts: sum over runs of rows, then over runs.
        runs = -(-values.shape[0] // (TERMS * num_classes))
        run = jnp.arange(values.shape[0], dtype=labels.dtype) // -(-values.shape[0] // runs) if runs > 1 else 0
        found = jax.ops.segment_sum(values, labels + run * num_classes, max(runs, 1) * num_classes)
        return jnp.sum(found.reshape(-1, num_classes, *values.shape[1:]), axis=0)

    one_hot = functools.partial(by_products, num_classes=num_classes)  # scatter-add on a GPU adds in any order
    return jax.lax.platform_dependent(values, labels, cpu=scatter_add, default=one_hot)


def by_products(values: Num[Array, " N *rest"], labels: Int[Array, " N"], num_classes: int) -> Num[Array, " K *rest"]:
    """`by_class` as products with the labels, one-hot.

    Float32 goes in three bfloat16 parts, which lose nothing and which tensor cores know: 0.6 of the time on an H200.
    """
    hot = labels[None, :] == jnp.arange(num_classes, dtype=labels.dtype)[:, None]
    flat = values.reshape(values.shape[0], -1)
    if values.dtype == jnp.float32:
        dot = functools.partial(jax.lax.dot, hot.astype(jnp.bfloat16), preferred_element_type=jnp.float32)
        found = functools.reduce(jnp.add, map(dot, _thirds(flat)))
    else:
        found = matmul(hot.astype(values.dtype), flat)
    return found.reshape(num_classes, *values.shape[1:])


def _thirds(x: Float[Array, ...]) -> list[Array]:
    """Three bfloat16 numbers whose sum is x [...] in float32, of 24 bits, 8 each."""
    parts = []
    for _ in range(3):
        part = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)  # a cast there and back XLA would leave out
        parts.append(part.astype(jnp.bfloat16))
        x = x - part
    return parts


def check_stats(stats: ClassStats, name: str = "stats") -> ClassStats:
    """The statistics; raises where they are none, or not of K classes and D features each.

    Raises:
      UserError: they are not.
    """
    expect(stats, ClassStats, name, "nc.collect, or nc.observe from nc.empty,")
    k, d = (*getattr(stats.anchor, "shape", ()), -1, -1)[:2]
    wanted = ((k,), (k, d), (k, d), (k,), (k,), (d, d))
    for field, x, shape in zip(ClassStats._fields, stats, wanted, strict=True):
        found = getattr(x, "shape", None)
        if found != shape and not (field == "scatter" and x is None):
            raise UserError(f"{name}.{field}: got {found}, expected an array of shape {shape}")
    return stats


def _check_to_add(stats: ClassStats, name: str) -> None:
    """`check_stats`, and raises where adding to them would round them."""
    check_precision(check_stats(stats, name).anchor, name)


def check_precision(anchor: Array, name: str) -> None:
    """Raises where what is kept in float64 would be added to in float32."""
    if anchor.dtype == jnp.float64 and not jax.config.read("jax_enable_x64"):
        raise UserError(f"{name} are kept in float64: add to them under jax.enable_x64(True), or set JAX_ENABLE_X64=1")


def check_shapes(features: Array, labels: Array, dim: int) -> None:
    """Raises where features are not [N, D], or labels not [N]."""
    if features.ndim != 2 or features.shape[1] != dim or labels.shape != features.shape[:1]:
        raise UserError(
            f"expected features [N, {dim}] and labels [N] as in the statistics, got {list(features.shape)} and "
            f"{list(labels.shape)}"
        )


def clean(
    features: Array, labels: Array, mask: Array | None, dtype: jnp.dtype, shape: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """Features as `dtype`, masked rows zero (they may hold anything, NaN included), labels int32, and the mask [N].

    Raises:
      UserError: the features are not [N, D] or the labels not [N] integers, for `shape` (K, D).
    """
    check_kind(features, "features")
    check_kind(labels, "labels")
    features, labels = jnp.asarray(features), jnp.asarray(labels)
    check_shapes(features, labels, shape[1])
    if jnp.issubdtype(features.dtype, jnp.complexfloating):
        raise UserError("features are complex; give real numbers")
    if mask is not None:
        check_kind(mask, "mask")
        if jnp.shape(mask) != labels.shape:
            raise UserError(f"mask: expected [{labels.shape[0]}], a number for each label, got {list(jnp.shape(mask))}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserError(f"labels must be integers, got {labels.dtype}")
    inside = (labels >= 0) & (labels < shape[0])
    real = (inside if mask is None else inside & (jnp.asarray(mask) > 0)).astype(dtype)
    labels = jnp.where(inside, labels, 0).astype(jnp.int32)
    return jnp.where(real[:, None] > 0, features.astype(dtype), 0), labels, real


def observe(
    stats: ClassStats, features: Float[Array, "N D"], labels: Int[Array, " N"], mask: Num[Array, " N"] | None = None
) -> ClassStats:
    """Adds a batch. Under `jit`, donate `stats` to update it in place.

    Args:
      stats: what was seen before.
      features: [N, D], any float type; moments are kept in the dtype of `stats`.
      labels: [N] integers; rows with labels outside [0, K), such as -1, are ignored.
      mask: [N], 0 for rows to ignore.

    Raises:
      UserError: shapes do not fit, or labels are no integers.
    """
    _check_to_add(stats, "stats")
    num_classes = stats.count.shape[0]
    features, labels, real = clean(features, labels, mask, stats.anchor.dtype, stats.anchor.shape)
    sums = functools.partial(by_class, labels=labels, num_classes=num_classes)
    rows = jnp.arange(labels.shape[0], dtype=jnp.int32)
    first = jax.ops.segment_min(jnp.where(real > 0, rows, labels.shape[0] - 1), labels, num_classes)
    anchor = features[jnp.clip(first, 0, labels.shape[0] - 1)]  # [K, D] the first example of each class
    anchor = jnp.where(stats.count[:, None] > 0, stats.anchor, anchor)
    bad = jnp.where(jnp.all(jnp.isfinite(features), axis=1), 0, real)
    count, bad = sums(jnp.stack([real, bad], axis=1)).T
    residual = (features - anchor[labels]) * real[:, None]  # [N, D]
    shift = sums(residual) / jnp.maximum(count, 1)[:, None]
    residual = (residual - shift[labels]) * real[:, None]
    spread = sums(jnp.sum(jnp.square(residual), axis=1))
    scatter = None if stats.scatter is None else matmul(residual.T, residual)
    seen = (count > 0)[:, None]
    return merge(stats, ClassStats(count, jnp.where(seen, anchor, 0), jnp.where(seen, shift, 0), spread, bad, scatter))


def merge(a: ClassStats, b: ClassStats) -> ClassStats:
    """The statistic of both sets of examples. Associative and commutative up to rounding.

    Raises:
      UserError: one keeps the scatter and the other does not, or K or D differ.
    """
    _check_to_add(a, "the first statistics")
    _check_to_add(b, "the second statistics")
    if (a.scatter is None) != (b.scatter is None) or a.anchor.shape != b.anchor.shape:
        describe = [f"{x.anchor.shape} {'without' if x.scatter is None else 'with'} scatter" for x in (a, b)]
        raise UserError(f"cannot merge statistics of different kinds: {describe[0]} and {describe[1]}")
    count = a.count + b.count
    share = b.count / jnp.maximum(count, 1)
    known = a.count[:, None] > 0
    anchor = jnp.where(known, a.anchor, b.anchor)
    shift_a = jnp.where(known, a.shift, 0)
    shift_b = jnp.where(b.count[:, None] > 0, (b.anchor - anchor) + b.shift, shift_a)
    delta = shift_b - shift_a  # [K, D] difference of the two means
    weighted = (a.count * share)[:, None] * delta  # n_a n_b / (n_a + n_b), zero if either is empty
    return ClassStats(
        count,
        anchor,
        shift_a + jnp.where(known, share[:, None] * delta, shift_b),
        a.spread + b.spread + jnp.sum(weighted * delta, axis=1),
        a.bad + b.bad,
        None if a.scatter is None else a.scatter + b.scatter + matmul(weighted.T, delta),
    )


def usable(stats: ClassStats) -> Bool[Array, " K"]:
    """[K] booleans: classes with at least two examples. Others have no spread and are left out of every metric."""
    return stats.count >= 2
