"""Collapse metrics: pure functions of `ClassStats`, one each, safe under `jit`.

`K` usable classes (two examples or more), `N` their examples, `n` examples a class, `D` feature width, `mu_k` class
means, `mu_G` their unweighted mean, `W` [K, D] and `b` [K] the linear classifier. Products run at the highest matmul
precision on every backend. Definitions: Papyan, Han & Donoho (2020); Zhu et al. (2021); Galanti, Gyorgy & Hutter (2022).
"""

from __future__ import annotations

import functools

import jax.numpy as jnp

from ncjax.nc.stats import ClassStats, usable
from ncjax.types import Array

_matmul = functools.partial(jnp.matmul, precision="highest")


def _classes(stats: ClassStats) -> tuple[Array, Array]:
    keep = usable(stats).astype(stats.mean.dtype)
    return keep, jnp.sum(keep)


def _centred_means(stats: ClassStats) -> Array:
    """[K, D] mu_k - mu_G; zero rows for classes that are left out."""
    keep, k = _classes(stats)
    global_mean = jnp.sum(keep[:, None] * stats.mean, axis=0, keepdims=True) / jnp.maximum(k, 1)
    return keep[:, None] * (stats.mean - global_mean)


def _undefined_below(enough: Array, value: Array) -> Array:
    return jnp.where(enough, value, jnp.nan)


def _span(stats: ClassStats) -> tuple[Array, Array, Array]:
    """Singular values [R], right vectors [R, D] of the centred means, and which of them count: at most K - 1."""
    _, k = _classes(stats)
    _, s, vt = jnp.linalg.svd(_centred_means(stats), full_matrices=False)
    # Class means carry rounding in proportion to their own norm, however close together they lie.
    largest = jnp.sqrt(jnp.max(jnp.sum(jnp.square(stats.mean), axis=1)))
    cut = 8 * jnp.finfo(s.dtype).eps * jnp.maximum(s[0], largest)
    keep = (jnp.arange(s.shape[0], dtype=s.dtype) < k - 1) & (s > cut)
    return s, vt, keep


def nc1_rank(stats: ClassStats) -> Array:
    """Rank of the between-class covariance used by `nc1`: at most min(K - 1, D)."""
    return jnp.sum(_span(stats)[2])


def nc1(stats: ClassStats) -> Array:
    """Within-class variability, NC1 = (1/K) tr(Sigma_W Sigma_B^+).

    Sigma_W = (1/N) sum (h - mu_k)(h - mu_k)^T, Sigma_B = (1/K) sum (mu_k - mu_G)(mu_k - mu_G)^T. The pseudo-inverse
    lives on the span of the class means: with centred means = U diag(s) V^T, NC1 = sum_i (v_i^T Sigma_W v_i) / s_i^2.
    NaN with fewer than two usable classes, or where their means coincide to rounding.
    """
    keep, k = _classes(stats)
    s, vt, used = _span(stats)
    n = jnp.maximum(jnp.sum(keep * stats.count), 1)
    within = jnp.sum(_matmul(vt, stats.scatter) * vt, axis=1) / n  # [R]
    terms = jnp.where(used, within / jnp.where(used, jnp.square(s), 1), 0)
    return _undefined_below((k >= 2) & jnp.any(used), jnp.sum(terms))


def nc1_floor(stats: ClassStats) -> Array:
    """What `nc1` is expected to be when labels carry no signal: (n - 1) p / (q - p - 1).

    n is the mean class size, p = min(K - 1, D), q = max(K - 1, D): for isotropic Gaussian features the class means'
    Gram matrix is Wishart with p dimensions and q degrees of freedom, and tr(W^-1) has mean p / (q - p - 1). For D >> K
    this is n (K - 1) / D. NaN where q <= p + 1: the mean does not exist, and NC1 has no useful floor.
    """
    keep, k = _classes(stats)
    n = jnp.sum(keep * stats.count) / jnp.maximum(k, 1)
    dim = jnp.asarray(stats.mean.shape[1], n.dtype)
    p, q = jnp.minimum(k - 1, dim), jnp.maximum(k - 1, dim)
    return _undefined_below((k >= 2) & (q > p + 1), (n - 1) * p / jnp.maximum(q - p - 1, 1))


def trace_ratio(stats: ClassStats) -> Array:
    """tr(Sigma_W) / tr(Sigma_B)."""
    keep, k = _classes(stats)
    within = jnp.sum(keep * stats.spread) / jnp.maximum(jnp.sum(keep * stats.count), 1)
    between = jnp.sum(jnp.square(_centred_means(stats))) / jnp.maximum(k, 1)
    return _undefined_below(k >= 2, within / between)


def _gram(stats: ClassStats) -> Array:
    means = _centred_means(stats)
    return _matmul(means, means.T)  # [K, K]


def cdnv_pairs(stats: ClassStats) -> Array:
    """[K, K] class-distance normalised variance of every pair; NaN on the diagonal and for classes left out.

    CDNV(k, k') = (sigma_k^2 + sigma_k'^2) / (2 ||mu_k - mu_k'||^2), sigma_k^2 = (1/n_k) sum_i ||h_{k,i} - mu_k||^2.
    """
    keep, _ = _classes(stats)
    gram = _gram(stats)
    norms = jnp.diagonal(gram)
    distance = norms[:, None] + norms[None, :] - 2 * gram
    variance = stats.spread / jnp.maximum(stats.count, 1)
    pair = (keep[:, None] * keep[None, :]) * (1 - jnp.eye(keep.shape[0], dtype=keep.dtype))
    ratio = (variance[:, None] + variance[None, :]) / (2 * jnp.where(pair > 0, jnp.maximum(distance, 0), 1))
    return jnp.where(pair > 0, ratio, jnp.nan)


def cdnv(stats: ClassStats) -> Array:
    """Mean of `cdnv_pairs` over pairs of usable classes (Galanti et al., 2022)."""
    return jnp.nanmean(cdnv_pairs(stats))


def _cosines(stats: ClassStats) -> tuple[Array, Array]:
    """Cosines of centred means [K, K] and which entries are pairs of distinct usable classes."""
    keep, _ = _classes(stats)
    gram = _gram(stats)
    norm = jnp.sqrt(jnp.diagonal(gram))
    cosine = gram / jnp.where(norm > 0, norm, 1)[:, None] / jnp.where(norm > 0, norm, 1)[None, :]
    return cosine, (keep[:, None] * keep[None, :] > 0) & ~jnp.eye(keep.shape[0], dtype=bool)


def class_separation(stats: ClassStats) -> Array:
    """D = 1 - max over pairs of cos(mu_k - mu_G, mu_k' - mu_G)."""
    cosine, pair = _cosines(stats)
    return _undefined_below(jnp.any(pair), 1 - jnp.max(jnp.where(pair, cosine, -jnp.inf)))


def equinorm(stats: ClassStats) -> Array:
    """Coefficient of variation of ||mu_k - mu_G|| over classes; 0 when all norms are equal (Papyan et al., 2020)."""
    keep, k = _classes(stats)
    norm = jnp.sqrt(jnp.sum(jnp.square(_centred_means(stats)), axis=1))
    mean = jnp.sum(keep * norm) / jnp.maximum(k, 1)
    variance = jnp.sum(keep * jnp.square(norm - mean)) / jnp.maximum(k, 1)
    return _undefined_below(k >= 2, jnp.sqrt(variance) / mean)


def equiangularity(stats: ClassStats) -> Array:
    """Mean over pairs of |cos(mu_k - mu_G, mu_k' - mu_G) + 1/(K - 1)|; 0 for a simplex ETF.

    The absolute value is inside the mean: the signed mean is zero for any centred, equal-norm means.
    """
    _, k = _classes(stats)
    cosine, pair = _cosines(stats)
    deviation = jnp.where(pair, jnp.abs(cosine + 1 / jnp.maximum(k - 1, 1)), 0)
    return _undefined_below(k >= 2, jnp.sum(deviation) / jnp.maximum(jnp.sum(pair), 1))


def _etf_distance(product: Array, keep: Array) -> Array:
    """|| A / ||A||_F - (I_K - 11^T/K) / sqrt(K - 1) ||_F for A [K, K], over the usable classes."""
    k = jnp.sum(keep)
    pair = keep[:, None] * keep[None, :]
    etf = pair * (jnp.diag(keep) - 1 / jnp.maximum(k, 1)) / jnp.sqrt(jnp.maximum(k - 1, 1))
    product = pair * product
    distance = jnp.linalg.norm(product / jnp.linalg.norm(product) - etf)
    return _undefined_below(k >= 2, distance)


def nc2(stats: ClassStats) -> Array:
    """Distance of the centred class means' Gram matrix from a simplex equiangular tight frame."""
    return _etf_distance(_gram(stats), _classes(stats)[0])


def nc2_classifier(weight: Array, *, centred: bool = False) -> Array:
    """NC2 of the classifier, || W W^T / ||W W^T||_F - (I - 11^T/K) / sqrt(K - 1) ||_F (Zhu et al., 2021).

    Args:
      weight: [K, D].
      centred: subtract the mean row first.
    """
    weight = weight - jnp.mean(weight, axis=0, keepdims=True) if centred else weight
    return _etf_distance(_matmul(weight, weight.T), jnp.ones(weight.shape[0], weight.dtype))


def nc3(stats: ClassStats, weight: Array) -> Array:
    """Self-duality, || W M^T / ||W M^T||_F - (I - 11^T/K) / sqrt(K - 1) ||_F, M the centred class means."""
    return _etf_distance(_matmul(weight, _centred_means(stats).T), _classes(stats)[0])


def nc3_papyan(stats: ClassStats, weight: Array) -> Array:
    """Papyan's self-duality, || W / ||W||_F - M / ||M||_F ||_F, over the usable classes."""
    keep, k = _classes(stats)
    weight, means = keep[:, None] * weight, _centred_means(stats)
    return _undefined_below(k >= 2, jnp.linalg.norm(weight / jnp.linalg.norm(weight) - means / jnp.linalg.norm(means)))


def nearest_class_mean(stats: ClassStats, features: Array) -> Array:
    """[N] index of the nearest class mean of each feature [N, D], among classes that were seen at all."""
    seen = (stats.count > 0).astype(stats.mean.dtype)[:, None]  # [K, 1]
    centre = jnp.sum(stats.mean * seen, axis=0, keepdims=True) / jnp.maximum(jnp.sum(seen), 1)
    means = stats.mean - centre
    score = _matmul(features - centre, means.T) - 0.5 * jnp.sum(jnp.square(means), axis=1)[None, :]
    return jnp.argmax(jnp.where(seen.T > 0, score, -jnp.inf), axis=1)


def nc4(stats: ClassStats, features: Array, weight: Array, bias: Array) -> Array:
    """Share of examples where argmax(W h + b) is the nearest class mean. `stats` give the means (those of training)."""
    decided = jnp.argmax(_matmul(features, weight.T) + bias[None, :], axis=1)
    return jnp.mean(decided == nearest_class_mean(stats, features))
