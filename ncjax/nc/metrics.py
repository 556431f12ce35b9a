"""Collapse metrics, one function each; `ncjax.nc.metric` says what they may ask for.

`K` usable classes (two examples or more), `N` their examples, `n_k` examples of a class, `D` feature width, `mu_k` class
means, `mu_G` their mean over classes, `W` [K, D] and `b` [K] the linear classifier. With `weighting="sample"` class k
weighs n_k / N in mu_G and Sigma_B, which else treat classes alike. Products run at the highest matmul precision everywhere.
Definitions: Papyan, Han & Donoho (2020); Zhu et al. (2021); Galanti, Gyorgy & Hutter (2022).
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.nc.geometry import (
    PAIRS_UP_TO,
    Geometry,
    Rows,
    by_rows,
    distances,
    eigenvectors_of_rows,
    inverse,
    of_rows,
    pairs,
    projected,
    same,
    undefined_unless,
)
from ncjax.nc.metric import About, metric
from ncjax.nc.projected import Look
from ncjax.nc.stats import ClassStats, matmul


@metric
def nc1(g: Geometry, stats: ClassStats, look: Look | None = None) -> Float[Array, ""]:
    """Within-class variability, (1/K) tr(S_W S_B^+).

    Sigma_W = (1/N) sum (h - mu_k)(h - mu_k)^T, Sigma_B = (1/K) sum (mu_k - mu_G)(mu_k - mu_G)^T. The pseudo-inverse
    lives on the span of the class means: with their singular values s_i and right vectors v_i, NC1 is
    sum_i (v_i^T Sigma_W v_i) / s_i^2. NaN with fewer than two usable classes, or where their means coincide. From the look
    if there is one (it brings the weighting of its frame), else from the scatter that `stats` keep.

    Raises:
      UserError: neither a look nor a scatter.
    """
    if look is not None:
        total = jnp.sum(look.count)
        value = undefined_unless(total > 0, jnp.sum(look.q) * look.unit / jnp.maximum(total, 1))
    elif (within := projected(stats, g)) is not None:
        value = jnp.sum(jnp.diagonal(within) * inverse(g))
    else:
        raise UserError("these statistics keep no scatter, so NC1 needs a second look: see ncjax.nc.look")
    return undefined_unless((g.k >= 2) & jnp.any(g.used), jnp.maximum(value, 0))


@metric
def cdnv(g: Geometry) -> Float[Array, ""]:
    """Class-distance normalised variance, mean over pairs.

    CDNV(k, k') = (sigma_k^2 + sigma_k'^2) / (2 ||mu_k - mu_k'||^2), sigma_k^2 = (1/n_k) sum_i ||h_{k,i} - mu_k||^2, over
    pairs of usable classes (Galanti et al., 2022). Memory K^2, not K^2 D. NaN if two collapsed classes coincide, infinite
    if classes with spread do.
    """
    return mean_cdnv(g, _variance(g))


@metric
def trace_ratio(g: Geometry) -> Float[Array, ""]:
    """Within-class over between-class variance, tr S_W / tr S_B; the latter is the sum of all eigenvalues."""
    between = jnp.sum(jnp.maximum(g.values, 0)) / jnp.maximum(g.k, 1)
    return undefined_unless(g.k >= 2, jnp.sum(g.spread) / jnp.maximum(g.total, 1) / between)


@metric
def directional_cdnv(g: Geometry, look: Look) -> Float[Array, ""]:
    """CDNV along the line between the two class means, mean over ordered pairs.

    u^T Sigma_k u / ||mu_k - mu_k'||^2, u the unit vector from mu_k' to mu_k: the part of the variance that blurs the
    border between the two classes (Luthra, Salunkhe & Galanti, 2026).

    Raises:
      UserError: beyond 256 classes, where a look keeps too little for it.
    """
    if not look.toward.size:
        raise UserError("directional CDNV is kept for up to 256 classes")
    pair = pairs(g)
    along = look.toward / jnp.maximum(look.count, 1)[:, None] / jnp.square(jnp.where(pair, distances(g), 1))
    return undefined_unless(g.k >= 2, jnp.sum(jnp.where(pair, along, 0)) / jnp.sum(pair.astype(g.k.dtype)))


@metric
def nc1_about(about: About) -> Float[Array, ""]:
    """NC1 about the other set's class means: of test features, those of training."""
    return nc1.of(about.g, about.stats, about.look)


@metric
def cdnv_about(about: About) -> Float[Array, ""]:
    """CDNV about the other set's class means."""
    spread = about.look.rho / jnp.maximum(about.look.count, 1)
    seen = about.g._replace(keep=about.g.keep * (about.look.count >= 1))
    return mean_cdnv(seen, spread)


@metric
def nc2(g: Geometry) -> Float[Array, ""]:
    """Class means to a simplex ETF, || M M^T / ||M M^T||_F - (I - 11^T/K) / sqrt(K - 1) ||_F, M centred."""
    return _etf_distance(g.means, g.means, g.keep)


@metric
def equinorm(g: Geometry) -> Float[Array, ""]:
    """Coefficient of variation of the norms of centred class means; 0 when all are equal (Papyan et al., 2020)."""
    norm = jnp.sqrt(jnp.sum(jnp.square(g.means), axis=1))
    mean = jnp.sum(g.keep * norm) / jnp.maximum(g.k, 1)
    variance = jnp.sum(g.keep * jnp.square(norm - mean)) / jnp.maximum(g.k, 1)
    return undefined_unless(g.k >= 2, jnp.sqrt(variance) / mean)


@metric
def equiangularity(g: Geometry) -> Float[Array, ""]:
    """Standard deviation of cosines of centred class means, over pairs; 0 for equal angles (Papyan et al., 2020)."""
    mean = _over_pairs(g, lambda rows: _cosines(g, rows))
    variance = _over_pairs(g, lambda rows: jnp.square(_cosines(g, rows) - mean))
    return undefined_unless(g.k >= 2, jnp.sqrt(variance))


@metric
def maximal_angle(g: Geometry) -> Float[Array, ""]:
    """Mean abs(cos + 1/(K-1)) over pairs of centred class means; 0 for maximal angles (Papyan et al., 2020).

    0 for a simplex ETF. The absolute value is inside the mean: the signed mean is zero for any centred, equal-norm means.
    """
    apart = 1 / jnp.maximum(g.k - 1, 1)
    return undefined_unless(g.k >= 2, _over_pairs(g, lambda rows: jnp.abs(_cosines(g, rows) + apart)))


@metric
def discrimination(g: Geometry) -> Float[Array, ""]:
    """Between-class discrimination, 1 - largest cosine of class means as they are, over pairs (Wang et al., 2023)."""
    return _largest_cosine_away(g, g.keep[:, None] * (g.means + g.middle[None, :]))


@metric
def discrimination_centred(g: Geometry) -> Float[Array, ""]:
    """The same of centred class means: 1 - largest cosine, over pairs."""
    return _largest_cosine_away(g, g.means)


@metric
def nc2_w(weight: Float[Array, "K D"]) -> Float[Array, ""]:
    """Classifier to a simplex ETF, || W W^T / ||W W^T||_F - (I - 11^T/K) / sqrt(K - 1) ||_F (Zhu et al., 2021)."""
    return _etf_distance(weight, weight, jnp.ones(weight.shape[0], weight.dtype))


@metric
def nc2_w_centred(weight: Float[Array, "K D"]) -> Float[Array, ""]:
    """Classifier to a simplex ETF, the mean of its rows subtracted first."""
    weight = weight - jnp.mean(weight, axis=0, keepdims=True)
    return _etf_distance(weight, weight, jnp.ones(weight.shape[0], weight.dtype))


@metric
def nc3(g: Geometry, weight: Float[Array, "K D"]) -> Float[Array, ""]:
    """Classifier against class means, to a simplex ETF: || W M^T / ||W M^T||_F - (I - 11^T/K) / sqrt(K - 1) ||_F."""
    return _etf_distance(weight, g.means, g.keep)


@metric
def nc3_papyan(g: Geometry, weight: Float[Array, "K D"]) -> Float[Array, ""]:
    """Classifier against class means, || W / ||W||_F - M / ||M||_F ||_F, over the usable classes (Papyan et al., 2020)."""
    weight = g.keep[:, None] * weight
    distance = jnp.linalg.norm(weight / jnp.linalg.norm(weight) - g.means / jnp.linalg.norm(g.means))
    return undefined_unless(g.k >= 2, distance)


@metric
def angle(angles: Float[Array, " R"]) -> Float[Array, ""]:
    """Largest principal angle between the spans of class means and classifier, in radians."""
    return jnp.nanmax(angles)


def nc4(decisions: Look) -> float:
    """Classifier agrees with the nearest class mean: share of examples, those of classes left out of the rest too."""
    return _share(decisions.agree, decisions)


def ncc_accuracy(decisions: Look) -> float:
    """Accuracy of the nearest class mean."""
    return _share(decisions.near, decisions)


def accuracy(decisions: Look) -> float:
    """Accuracy of the classifier."""
    return _share(decisions.correct, decisions)


@metric
def nc5(g: Geometry, outside: Array, *, centred: bool = False) -> Float[Array, ""]:
    """Mean over classes of abs(cos(mu_k, mu_O)), mu_O the mean of out-of-distribution features (Ammar et al., 2024).

    Args:
      outside: [D] that mean, or [M, D] the features.
      centred: subtract mu_G from both first.
    """
    outside = jnp.mean(outside, axis=0) if outside.ndim == 2 else outside
    means, outside = (g.means, outside - g.middle) if centred else (g.means + g.middle[None, :], outside)
    norm = jnp.linalg.norm(means, axis=1) * jnp.linalg.norm(outside)
    cosine = jnp.abs(matmul(means, outside)) / jnp.where(norm > 0, norm, 1)
    return undefined_unless(g.k >= 2, jnp.sum(g.keep * cosine) / jnp.maximum(g.k, 1))


# What has an entry for each class, pair or direction.


@metric
def cdnv_pairs(g: Geometry) -> Float[Array, "K K"]:
    """CDNV of every pair [K, K]; NaN on the diagonal and for classes left out.

    Raises:
      UserError: beyond 4096 classes, where pairs are not kept.
    """
    if g.keep.shape[0] > PAIRS_UP_TO:
        raise UserError(f"what has an entry a pair is kept for up to {PAIRS_UP_TO} classes")
    pair, ratio = pairs(g), _cdnv(g, _variance(g), None)
    return jnp.where(pair, ratio, jnp.nan)


@metric
def nc1_classes(stats: ClassStats, look: Look) -> Float[Array, " K"]:
    """NC1 of each class [K], (1/K) tr(Sigma_k S_B^+) with Sigma_k the covariance of class k; NaN if left out.

    Their mean, weighted by n_k, is NC1.
    """
    keep = stats.count >= 2
    return jnp.where(keep, look.q * look.unit / jnp.maximum(look.count, 1), jnp.nan)


@metric
def nc1_pairs(g: Geometry, look: Look) -> Float[Array, "K K"]:
    """NC1 of each two-class problem [K, K]; NaN on the diagonal and for classes left out.

    With d = mu_k - mu_k' and both classes' covariances pooled by n: 2 d^T Sigma_W d / ||d||^4. It says which classes
    have not parted, and from which.

    Raises:
      UserError: beyond 256 classes, where a look keeps too little for it.
    """
    if not look.toward.size:
        raise UserError("NC1 of pairs is kept for up to 256 classes")
    pair = pairs(g)
    pooled = (look.toward + look.toward.T) / jnp.maximum(look.count[:, None] + look.count[None, :], 1)
    return jnp.where(pair, 2 * pooled / jnp.square(jnp.where(pair, distances(g), 1)), jnp.nan)


@metric
def subspace_angles(g: Geometry, weight: Float[Array, "K D"]) -> Float[Array, " R"]:
    """Principal angles [R] between the spans of centred class means and of centred W, in radians, smallest first.

    R = min(K - 1, D); with k usable classes, NaN beyond k - 1. All zero when classifier and means span the same space; a
    direction outside the rank of the means or of W counts as a right angle. From the squared sines (Bjorck & Golub,
    1973), right to about 1e-8.
    """
    keep = g.keep[:, None]
    weight = keep * (weight - jnp.sum(keep * weight, axis=0, keepdims=True) / jnp.maximum(g.k, 1))
    values, other, _ = eigenvectors_of_rows(weight)  # [R], [D, R]
    spans = values > 64 * weight.shape[0] * float(jnp.finfo(values.dtype).eps) * values[0]
    basis = jnp.where(g.used[None, :], g.basis, 0)
    outside = jnp.where(spans[None, :], other - matmul(basis, matmul(basis.T, other)), 0)
    defined = jnp.arange(len(values)).astype(g.k.dtype) < g.k - 1
    square = jnp.linalg.eigvalsh(matmul(outside.T, outside) + jnp.diag(jnp.where(spans, 0.0, jnp.where(defined, 1.0, 2.0))))
    return undefined_unless(square < 1.5, jnp.arcsin(jnp.sqrt(jnp.clip(square, 0, 1))))


@metric
def cosines(g: Geometry) -> Float[Array, "K K"]:
    """Cosines of centred class means [K, K]; NaN for classes left out."""
    return cosines_of_rows(g.means)


@metric
def nc1_rank(g: Geometry) -> Array:
    """Numerical rank of the between-class covariance, which NC1 inverts: at most min(K - 1, D)."""
    return jnp.sum(g.used)


@metric
def nc1_cut(g: Geometry) -> Array:
    """The singular value of the centred class means at or below which a direction is taken for rounding, not rank."""
    return g.cut


def nearest_class_mean(stats: ClassStats, features: Float[Array, "N D"]) -> Array:
    """[N] index of the nearest class mean of each feature [N, D], among usable classes."""
    keep = (stats.count >= 2)[:, None]
    origin = jnp.sum(jnp.where(keep, stats.mean, 0), axis=0, keepdims=True) / jnp.maximum(jnp.sum(keep), 1)
    means = jnp.where(keep, (stats.anchor - origin) + stats.shift, 0)
    score = matmul(features.astype(means.dtype) - origin, means.T) - 0.5 * jnp.sum(jnp.square(means), axis=1)[None, :]
    return jnp.argmax(jnp.where(keep.T, score, -jnp.inf), axis=1)


def nearest_class_mean_agreement(
    stats: ClassStats, features: Float[Array, "N D"], weight: Float[Array, "K D"], bias: Float[Array, " K"]
) -> Array:
    """NC4 of features at hand: share where argmax(W h + b) is the nearest class mean, which `stats` give."""
    decided = jnp.argmax(matmul(features, weight.T) + bias[None, :], axis=1)
    return jnp.mean(decided == nearest_class_mean(stats, features))


def mean_cdnv(g: Geometry, variance: Float[Array, " K"]) -> Array:
    """CDNV, mean over pairs, of class variances [K] about the class means of a geometry."""
    return undefined_unless(g.k >= 2, _over_pairs(g, lambda rows: _cdnv(g, variance, rows)))


def _cdnv(g: Geometry, variance: Float[Array, " K"], rows: Rows) -> Float[Array, "B K"]:
    return (of_rows(variance, rows)[:, None] + variance[None, :]) / (2 * jnp.where(pairs(g, rows), distances(g, rows), 1))


def _over_pairs(g: Geometry, of: Callable[[Rows], Float[Array, "B K"]]) -> Array:
    """The mean over pairs of distinct usable classes of what `of` gives for rows of [K, K]."""
    total = jnp.sum(by_rows(g.keep.shape[0], lambda rows: jnp.sum(jnp.where(pairs(g, rows), of(rows), 0), axis=1)))
    return total / jnp.maximum(g.k * (g.k - 1), 1)


def _variance(g: Geometry) -> Array:
    return g.spread / jnp.maximum(g.n, 1)


def _largest_cosine_away(g: Geometry, means: Float[Array, "K D"]) -> Array:
    def largest(rows: Rows) -> Array:
        return jnp.max(jnp.where(pairs(g, rows), cosines_of_rows(means, rows), -jnp.inf), axis=1)

    return undefined_unless(g.k >= 2, jnp.maximum(1 - jnp.max(by_rows(g.keep.shape[0], largest)), 0))


def _cosines(g: Geometry, rows: Rows) -> Float[Array, "B K"]:
    """Cosines of centred means; NaN where a class is left out or its mean is the global mean."""
    return cosines_of_rows(g.means, rows)


def cosines_of_rows(x: Float[Array, "K D"], rows: Rows = None) -> Float[Array, "B K"]:
    """Cosines of rows of x with all of them, of some rows only if said which; NaN where one is zero."""
    gram = matmul(of_rows(x, rows), x.T)
    norm = jnp.sqrt(jnp.diagonal(gram) if rows is None else jnp.sum(jnp.square(x), axis=1))
    norm = jnp.where(norm > 0, norm, jnp.nan)
    return gram / of_rows(norm, rows)[:, None] / norm[None, :]


def _etf_distance(left: Float[Array, "K D"], right: Float[Array, "K D"], keep: Float[Array, " K"]) -> Array:
    """|| A / ||A||_F - (I_K - 11^T/K) / sqrt(K - 1) ||_F for A = left right^T [K, K], over the usable classes."""
    k, count = jnp.sum(keep), keep.shape[0]

    def product(rows: Rows) -> tuple[Array, Array]:
        pair = of_rows(keep, rows)[:, None] * keep[None, :]
        return pair * matmul(of_rows(left, rows), right.T), pair

    def away(rows: Rows) -> Array:
        found, pair = product(rows)
        etf = pair * (same(count, rows).astype(keep.dtype) - 1 / jnp.maximum(k, 1)) / jnp.sqrt(jnp.maximum(k - 1, 1))
        return jnp.sum(jnp.square(found / norm - etf), axis=1)

    norm = jnp.sqrt(jnp.sum(by_rows(count, lambda rows: jnp.sum(jnp.square(product(rows)[0]), axis=1))))
    return undefined_unless(k >= 2, jnp.sqrt(jnp.sum(by_rows(count, away))))


def _share(examples: Array, decisions: Look) -> float:
    """Of all examples decided on, NaN if none were. On the host: counts in float32 are exact, their ratio is not."""
    total = np.sum(np.asarray(decisions.decided, np.float64))
    return float(np.sum(np.asarray(examples, np.float64)) / total) if total > 0 else float("nan")
