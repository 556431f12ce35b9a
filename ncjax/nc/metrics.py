"""Collapse metrics: pure functions of `ClassStats`, one each, safe under `jit`, computed in float64.

`K` usable classes (two examples or more), `N` their examples, `n_k` examples a class, `D` feature width, `mu_k` class
means, `mu_G` their mean over classes, `W` [K, D] and `b` [K] the linear classifier. `weighting="sample"` weighs class k by
n_k / N in mu_G and Sigma_B, which else treat classes alike. Products run at the highest matmul precision everywhere.
Definitions: Papyan, Han & Donoho (2020); Zhu et al. (2021); Galanti, Gyorgy & Hutter (2022).
"""

from __future__ import annotations

import jax.numpy as jnp

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.nc.geometry import (
    Geometry,
    distances,
    double,
    eigenvectors_of_rows,
    geometry,
    inverse,
    pairs,
    projected,
    undefined_unless,
)
from ncjax.nc.projected import Look
from ncjax.nc.stats import ClassStats, matmul


@double
def nc1_rank(stats: ClassStats, *, weighting: str = "class") -> Array:
    """Numerical rank of the between-class covariance, which `nc1` inverts: at most min(K - 1, D)."""
    return jnp.sum(geometry(stats, weighting).used)


@double
def nc1_cut(stats: ClassStats, *, weighting: str = "class") -> Array:
    """The singular value of the centred class means at or below which a direction is taken for rounding, not rank."""
    return geometry(stats, weighting).cut


def nc1_of(g: Geometry, stats: ClassStats, look: Look | None) -> Array:
    """`nc1` where the geometry is known."""
    if look is not None:
        total = jnp.sum(look.count)
        value = undefined_unless(total > 0, jnp.sum(look.q) * look.unit / jnp.maximum(total, 1))
    elif stats.scatter is not None:
        value = jnp.sum(jnp.diagonal(projected(stats, g)) * inverse(g))
    else:
        raise UserError("these statistics keep no scatter, so NC1 needs a second look: see ncjax.nc.look")
    return undefined_unless((g.k >= 2) & jnp.any(g.used), jnp.maximum(value, 0))


@double
def nc1(stats: ClassStats, look: Look | None = None, *, weighting: str = "class") -> Array:
    """Within-class variability, NC1 = (1/K) tr(Sigma_W Sigma_B^+).

    Sigma_W = (1/N) sum (h - mu_k)(h - mu_k)^T, Sigma_B = (1/K) sum (mu_k - mu_G)(mu_k - mu_G)^T. The pseudo-inverse
    lives on the span of the class means: with their singular values s_i and right vectors v_i, NC1 is
    sum_i (v_i^T Sigma_W v_i) / s_i^2. NaN with fewer than two usable classes, or where their means coincide.

    Args:
      stats: the class statistics.
      look: a second look in a frame of the same statistics; without one, the scatter that `stats` keep is used.
      weighting: "class" or "sample"; a look brings that of its frame.

    Raises:
      UserError: neither a look nor a scatter.
    """
    return nc1_of(geometry(stats, weighting), stats, look)


def trace_ratio_of(g: Geometry) -> Array:
    """`trace_ratio` where the geometry is known: tr(Sigma_B) is the sum of all its eigenvalues."""
    between = jnp.sum(jnp.maximum(g.values, 0)) / jnp.maximum(g.k, 1)
    return undefined_unless(g.k >= 2, jnp.sum(g.spread) / jnp.maximum(g.total, 1) / between)


@double
def trace_ratio(stats: ClassStats, *, weighting: str = "class") -> Array:
    """tr(Sigma_W) / tr(Sigma_B)."""
    return trace_ratio_of(geometry(stats, weighting))


def cdnv_pairs_of(g: Geometry, variance: Array) -> Array:
    """`cdnv_pairs` of class variances [K] about the class means of a geometry."""
    pair = pairs(g)
    ratio = (variance[:, None] + variance[None, :]) / (2 * jnp.where(pair, distances(g), 1))
    return jnp.where(pair, ratio, jnp.nan)


def cdnv_of(g: Geometry, variance: Array) -> Array:
    """Mean of `cdnv_pairs_of`; NaN if two collapsed classes coincide, infinite if classes with spread do."""
    pair = pairs(g)
    total = jnp.sum(jnp.where(pair, cdnv_pairs_of(g, variance), 0))
    return undefined_unless(g.k >= 2, total / jnp.sum(pair.astype(g.k.dtype)))


def _variance(g: Geometry) -> Array:
    return g.spread / jnp.maximum(g.n, 1)


@double
def cdnv_pairs(stats: ClassStats) -> Array:
    """[K, K] class-distance normalised variance of every pair; NaN on the diagonal and for classes left out.

    CDNV(k, k') = (sigma_k^2 + sigma_k'^2) / (2 ||mu_k - mu_k'||^2), sigma_k^2 = (1/n_k) sum_i ||h_{k,i} - mu_k||^2.
    """
    g = geometry(stats)
    return cdnv_pairs_of(g, _variance(g))


@double
def cdnv(stats: ClassStats) -> Array:
    """Mean of `cdnv_pairs` over pairs of usable classes (Galanti et al., 2022). Memory K^2, not K^2 D."""
    g = geometry(stats)
    return cdnv_of(g, _variance(g))


def _cosines(g: Geometry) -> Array:
    """Cosines of centred means [K, K]; NaN where a class is left out or its mean is the global mean."""
    gram = matmul(g.means, g.means.T)
    norm = jnp.sqrt(jnp.diagonal(gram))
    norm = jnp.where(norm > 0, norm, jnp.nan)
    return gram / norm[:, None] / norm[None, :]


@double
def cosines(stats: ClassStats, *, weighting: str = "class") -> Array:
    """[K, K] cosines of the centred class means; NaN for classes left out."""
    return _cosines(geometry(stats, weighting))


def class_separation_of(g: Geometry) -> Array:
    """`class_separation` where the geometry is known."""
    pair = pairs(g)
    separation = jnp.maximum(1 - jnp.max(jnp.where(pair, _cosines(g), -jnp.inf)), 0)
    return undefined_unless(jnp.any(pair), separation)


@double
def class_separation(stats: ClassStats, *, weighting: str = "class") -> Array:
    """D_l = 1 - max over pairs of cos(mu_k - mu_G, mu_k' - mu_G)."""
    return class_separation_of(geometry(stats, weighting))


def equinorm_of(g: Geometry) -> Array:
    """`equinorm` where the geometry is known."""
    norm = jnp.sqrt(jnp.sum(jnp.square(g.means), axis=1))
    mean = jnp.sum(g.keep * norm) / jnp.maximum(g.k, 1)
    variance = jnp.sum(g.keep * jnp.square(norm - mean)) / jnp.maximum(g.k, 1)
    return undefined_unless(g.k >= 2, jnp.sqrt(variance) / mean)


@double
def equinorm(stats: ClassStats, *, weighting: str = "class") -> Array:
    """Coefficient of variation of ||mu_k - mu_G|| over classes; 0 when all norms are equal (Papyan et al., 2020)."""
    return equinorm_of(geometry(stats, weighting))


def equiangularity_of(g: Geometry) -> Array:
    """`equiangularity` where the geometry is known."""
    pair = pairs(g)
    deviation = jnp.where(pair, jnp.abs(_cosines(g) + 1 / jnp.maximum(g.k - 1, 1)), 0)
    return undefined_unless(g.k >= 2, jnp.sum(deviation) / jnp.maximum(jnp.sum(pair.astype(g.k.dtype)), 1))


@double
def equiangularity(stats: ClassStats, *, weighting: str = "class") -> Array:
    """Mean over pairs of |cos(mu_k - mu_G, mu_k' - mu_G) + 1/(K - 1)|; 0 for a simplex ETF.

    The absolute value is inside the mean: the signed mean is zero for any centred, equal-norm means.
    """
    return equiangularity_of(geometry(stats, weighting))


def _etf_distance(product: Array, keep: Array) -> Array:
    """|| A / ||A||_F - (I_K - 11^T/K) / sqrt(K - 1) ||_F for A [K, K], over the usable classes."""
    k = jnp.sum(keep)
    pair = keep[:, None] * keep[None, :]
    etf = pair * (jnp.eye(keep.shape[0], dtype=keep.dtype) - 1 / jnp.maximum(k, 1)) / jnp.sqrt(jnp.maximum(k - 1, 1))
    product = pair * product
    distance = jnp.linalg.norm(product / jnp.linalg.norm(product) - etf)
    return undefined_unless(k >= 2, distance)


def nc2_of(g: Geometry) -> Array:
    """`nc2` where the geometry is known."""
    return _etf_distance(matmul(g.means, g.means.T), g.keep)


@double
def nc2(stats: ClassStats, *, weighting: str = "class") -> Array:
    """Distance of the centred class means' Gram matrix from a simplex equiangular tight frame."""
    return nc2_of(geometry(stats, weighting))


@double
def nc2_classifier(weight: Array, *, centred: bool = False) -> Array:
    """NC2 of the classifier, || W W^T / ||W W^T||_F - (I - 11^T/K) / sqrt(K - 1) ||_F (Zhu et al., 2021).

    Args:
      weight: [K, D].
      centred: subtract the mean row first.
    """
    gram = matmul(weight, weight.T)
    if centred:
        mean = jnp.mean(gram, axis=0, keepdims=True)
        gram = gram - mean - mean.T + jnp.mean(gram)
    return _etf_distance(gram, jnp.ones(weight.shape[0], weight.dtype))


def nc3_of(g: Geometry, weight: Array) -> Array:
    """`nc3` where the geometry is known."""
    return _etf_distance(matmul(weight, g.means.T), g.keep)


@double
def nc3(stats: ClassStats, weight: Array, *, weighting: str = "class") -> Array:
    """Self-duality, || W M^T / ||W M^T||_F - (I - 11^T/K) / sqrt(K - 1) ||_F, M the centred class means [K, D]."""
    return nc3_of(geometry(stats, weighting), weight)


def nc3_papyan_of(g: Geometry, weight: Array) -> Array:
    """`nc3_papyan` where the geometry is known."""
    weight = g.keep[:, None] * weight
    distance = jnp.linalg.norm(weight / jnp.linalg.norm(weight) - g.means / jnp.linalg.norm(g.means))
    return undefined_unless(g.k >= 2, distance)


@double
def nc3_papyan(stats: ClassStats, weight: Array, *, weighting: str = "class") -> Array:
    """Papyan's self-duality, || W / ||W||_F - M / ||M||_F ||_F, over the usable classes."""
    return nc3_papyan_of(geometry(stats, weighting), weight)


def subspace_angles_of(g: Geometry, weight: Array) -> Array:
    """`subspace_angles` where the geometry is known."""
    keep = g.keep[:, None]
    weight = keep * (weight - jnp.sum(keep * weight, axis=0, keepdims=True) / jnp.maximum(g.k, 1))
    values, other, _ = eigenvectors_of_rows(weight)  # [R], [D, R]
    spans = values > 64 * weight.shape[0] * float(jnp.finfo(values.dtype).eps) * values[0]
    basis = jnp.where(g.used[None, :], g.basis, 0)
    outside = jnp.where(spans[None, :], other - matmul(basis, matmul(basis.T, other)), 0)
    defined = jnp.arange(len(values)).astype(g.k.dtype) < g.k - 1
    square = jnp.linalg.eigvalsh(matmul(outside.T, outside) + jnp.diag(jnp.where(spans, 0.0, jnp.where(defined, 1.0, 2.0))))
    return undefined_unless(square < 1.5, jnp.arcsin(jnp.sqrt(jnp.clip(square, 0, 1))))


@double
def subspace_angles(stats: ClassStats, weight: Array) -> Array:
    """[R] principal angles, in radians, smallest first, between the spans of the centred class means and of centred W.

    R = min(K - 1, D); with k usable classes, NaN beyond k - 1. All zero when classifier and means span the same space; a
    direction outside the rank of the means or of W counts as a right angle. From the squared sines (Bjorck & Golub,
    1973), right to about 1e-8.
    """
    return subspace_angles_of(geometry(stats), weight)


def nc5_of(g: Geometry, outside: Array, *, centred: bool = False) -> Array:
    """`nc5` where the geometry is known."""
    outside = jnp.mean(outside, axis=0) if outside.ndim == 2 else outside
    means, outside = (g.means, outside - g.middle) if centred else (g.means + g.middle[None, :], outside)
    norm = jnp.linalg.norm(means, axis=1) * jnp.linalg.norm(outside)
    cosine = jnp.abs(matmul(means, outside)) / jnp.where(norm > 0, norm, 1)
    return undefined_unless(g.k >= 2, jnp.sum(g.keep * cosine) / jnp.maximum(g.k, 1))


@double
def nc5(stats: ClassStats, outside: Array, *, centred: bool = False) -> Array:
    """Mean over classes of |cos(mu_k, mu_O)|, mu_O the mean of out-of-distribution features (Ammar et al., 2024).

    Args:
      stats: of the in-distribution features.
      outside: [D] that mean, or [N, D] the features.
      centred: subtract mu_G from both first.
    """
    return nc5_of(geometry(stats), outside, centred=centred)


def nearest_class_mean(stats: ClassStats, features: Array) -> Array:
    """[N] index of the nearest class mean of each feature [N, D], among usable classes."""
    keep = (stats.count >= 2)[:, None]
    origin = jnp.sum(jnp.where(keep, stats.mean, 0), axis=0, keepdims=True) / jnp.maximum(jnp.sum(keep), 1)
    means = jnp.where(keep, (stats.anchor - origin) + stats.shift, 0)
    score = matmul(features.astype(means.dtype) - origin, means.T) - 0.5 * jnp.sum(jnp.square(means), axis=1)[None, :]
    return jnp.argmax(jnp.where(keep.T, score, -jnp.inf), axis=1)


def nc4(stats: ClassStats, features: Array, weight: Array, bias: Array) -> Array:
    """Share of examples where argmax(W h + b) is the nearest class mean. `stats` give the means (those of training)."""
    decided = jnp.argmax(matmul(features, weight.T) + bias[None, :], axis=1)
    return jnp.mean(decided == nearest_class_mean(stats, features))
