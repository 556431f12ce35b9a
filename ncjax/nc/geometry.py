"""What the metrics share: the class means, centred, in float64, and the directions they span.

The statistics are float32 sums of small residuals; what is *computed from* them runs in float64, whatever the process's
default is. The K x K Gram matrix of class means squares their condition number, and float32 has no digits to spare.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.nc.stats import ClassStats, matmul, usable

WEIGHTINGS = ("class", "sample")
PAIRS_UP_TO = 4096  # classes beyond which nothing with an entry a pair is kept
PAIRS = PAIRS_UP_TO**2  # entries of a matrix of pairs that are there at once: 128 MB of float64

Rows = Int[Array, " B"] | None  # of a matrix of pairs; None for all


class Geometry(NamedTuple):
    """Float64. K classes of which k usable; R = min(K - 1, D) directions, of which those in `used` count."""

    keep: Float[Array, " K"]  # 1 for a usable class
    k: Float[Array, ""]  # number of usable classes
    n: Float[Array, " K"]  # examples, 0 for classes left out
    weight: Float[Array, " K"]  # k times the weight of each class in mu_G and Sigma_B: 1 for usable classes, or k n_k / N
    middle: Float[Array, " D"]  # mu_G
    means: Float[Array, "K D"]  # mu_k - mu_G, zero for classes left out
    values: Float[Array, " R"]  # k times the eigenvalues of Sigma_B, largest first
    basis: Float[Array, "D R"]  # their eigenvectors
    place: Float[Array, "K R"]  # the centred means in that basis
    used: Bool[Array, " R"]  # directions inside the numerical rank
    cut: Float[Array, ""]  # what a singular value (the root of `values`) must exceed
    total: Float[Array, ""]  # N, examples of usable classes
    spread: Float[Array, " K"]  # sum_i ||h - mu_k||^2, zero for classes left out
    norm: Float[Array, ""]  # the largest ||mu_k||


def double(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a function in float64, and returns its floats in the widest dtype of its arrays, those of a `Geometry` apart."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        leaves = jax.tree.leaves([x for x in args if not isinstance(x, Geometry)])
        with jax.enable_x64(True):
            out = jnp.result_type(
                *(x.dtype for x in leaves if jnp.issubdtype(jnp.result_type(x), jnp.floating)), jnp.float32
            )
            found = function(*jax.tree.map(as_double, args), **kwargs)
            return jax.tree.map(lambda x: x.astype(out) if jnp.issubdtype(x.dtype, jnp.floating) else x, found)

    return wrapped


def as_double(x: Any) -> Array:
    """Floats as float64; everything else as it is."""
    x = jnp.asarray(x)
    return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


def check_weighting(weighting: str) -> str:
    """One of `WEIGHTINGS`, or the fault."""
    if not isinstance(weighting, str) or weighting not in WEIGHTINGS:
        raise UserError(f"weighting={weighting!r}: {' or '.join(map(repr, WEIGHTINGS))}")
    return weighting


def geometry(stats: ClassStats, weighting: str = "class") -> Geometry:
    """Centred class means of float64 statistics and the eigenvectors of Sigma_B; call it inside `double`.

    Args:
      stats: already cast to float64.
      weighting: "class": mu_G and Sigma_B = (1/k) sum_k (mu_k - mu_G)(mu_k - mu_G)^T treat classes alike. "sample":
        class k weighs n_k / N in both.
    """
    check_weighting(weighting)
    keep = usable(stats).astype(stats.anchor.dtype)
    k, n = jnp.sum(keep), keep * stats.count
    total = jnp.sum(n)
    share = keep / jnp.maximum(k, 1) if weighting == "class" else n / jnp.maximum(total, 1)
    mean = jnp.where(keep[:, None] > 0, stats.anchor + stats.shift, 0)
    middle = jnp.sum(share[:, None] * mean, axis=0)
    means = keep[:, None] * (mean - middle[None, :])
    scale = jnp.sqrt(k * share)[:, None]
    values, basis, image = eigenvectors_of_rows(scale * means)
    place = image / jnp.where(scale > 0, scale, 1)
    start = jnp.zeros((), means.dtype)
    found = Geometry(
        keep=keep,
        k=k,
        n=n,
        weight=k * share,
        middle=middle,
        means=means,
        values=values,
        basis=basis,
        place=place,
        used=values > 0,
        cut=start,
        total=total,
        spread=keep * stats.spread,
        norm=jnp.max(jnp.linalg.norm(mean, axis=1)),
    )
    return refit(found, stats)


def eigenvectors_of_rows(
    rows: Float[Array, "K D"],
) -> tuple[Float[Array, " R"], Float[Array, "D R"], Float[Array, "K R"]]:
    """Of rows A [K, D] that sum to zero: the largest R = min(K - 1, D) eigenvalues of A^T A, their vectors V [D, R], A V.

    From the smaller of A A^T and A^T A. Where an eigenvalue is not positive, its vector is zero.
    """
    count, dim = rows.shape
    directions = min(max(count - 1, 1), dim)
    if count <= dim:
        values, left = jnp.linalg.eigh(matmul(rows, rows.T))
        values, left = values[::-1][:directions], left[:, ::-1][:, :directions]
        basis = matmul(rows.T, left) / jnp.sqrt(jnp.where(values > 0, values, jnp.inf))[None, :]
        return values, basis, left * jnp.sqrt(jnp.maximum(values, 0))[None, :]
    values, basis = jnp.linalg.eigh(matmul(rows.T, rows))
    values, basis = values[::-1][:directions], basis[:, ::-1][:, :directions]
    return values, basis, matmul(rows, basis)


def refit(g: Geometry, stats: ClassStats) -> Geometry:
    """The geometry for the same class means and another spread: it decides what counts as rank."""
    keep, k, total, count = g.keep, g.k, g.total, g.keep.shape[0]
    # Three limits: float64's in a Gram matrix and in the means, and that of the float32 residuals a class mean sums.
    within = jnp.sum(keep * stats.spread) / jnp.maximum(total, 1)
    eps = float(jnp.finfo(jnp.float64).eps)
    rounding = 4 * float(jnp.finfo(jnp.float32).eps) * jnp.sqrt(within) + 64 * eps * math.sqrt(count) * g.norm
    cut = jnp.maximum(jnp.sqrt(jnp.maximum(g.values[0], 0) * 64 * count * eps), rounding)
    inside = jnp.arange(g.values.shape[0]).astype(k.dtype) < k - 1
    return g._replace(used=inside & (g.values > jnp.square(cut)), cut=cut, spread=keep * stats.spread)


def geometry_of(stats: ClassStats, weighting: str = "class") -> Geometry:
    """`geometry` of statistics in their own dtype; its float64 arrays are for functions marked `double`."""
    with jax.enable_x64(True):
        return geometry(jax.tree.map(as_double, stats), weighting)


def by_rows(count: int, of: Callable[[Rows], Any]) -> Any:
    """`of(rows)` [B, ...] for all rows of a matrix of pairs [K, K], of which `PAIRS` entries are there at once.

    Args:
      count: K.
      of: a function of row indices, None for all; of what it returns every leaf has an entry a row.
    """
    together = max(1, PAIRS // count)
    if count <= together:
        return of(None)
    blocks = -(-count // together)
    rows = jnp.minimum(jnp.arange(blocks * together), count - 1).reshape(blocks, together)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], jax.lax.map(of, rows))


def undefined_unless(enough: Array, value: Array) -> Array:
    """The value, or NaN."""
    return jnp.where(enough, value, jnp.nan)


def distances(g: Geometry, rows: Rows = None) -> Float[Array, "B K"]:
    """[K, K] squared distances between class means, or some rows of them, by the Gram identity."""
    gram = matmul(of_rows(g.means, rows), g.means.T)
    norms = jnp.diagonal(gram) if rows is None else jnp.sum(jnp.square(g.means), axis=1)
    both = of_rows(norms, rows)[:, None] + norms[None, :]
    found = jnp.maximum(both - 2 * gram, 0)
    # Of classes that coincide the parts cancel to the last bit only where all come from one product.
    return found if rows is None else jnp.where(found > 64 * float(jnp.finfo(found.dtype).eps) * both, found, 0)


def of_rows(x: Array, rows: Rows) -> Array:
    """Those rows of x [K, ...]."""
    return x if rows is None else x[rows]


def same(count: int, rows: Rows = None) -> Bool[Array, "B K"]:
    """Those rows of the identity, as booleans."""
    every = jnp.arange(count)
    return of_rows(every, rows)[:, None] == every[None, :]


def pairs(g: Geometry, rows: Rows = None) -> Bool[Array, "B K"]:
    """[K, K] booleans, or some rows of them: pairs of distinct usable classes."""
    return (of_rows(g.keep, rows)[:, None] * g.keep[None, :] > 0) & ~same(g.keep.shape[0], rows)


def inverse(g: Geometry) -> Float[Array, " R"]:
    """[R] 1 / values, zero outside the numerical rank."""
    return jnp.where(g.used, 1 / jnp.where(g.used, g.values, 1), 0)


def projected(stats: ClassStats, g: Geometry) -> Float[Array, "R R"] | None:
    """[R, R] within-class covariance V^T Sigma_W V in the basis of the class means; None if no scatter is kept."""
    if stats.scatter is None:
        return None
    return matmul(g.basis.T, matmul(stats.scatter, g.basis)) / jnp.maximum(g.total, 1)
