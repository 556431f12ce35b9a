"""How far a number can be trusted: its interval, and flags. `ncjax.nc.null` has its floor.

What an interval covers is the mean of the metric over repeated draws of n_k examples from the same K classes: the number
another sample *of the same size* would give, not the number at infinite n. NC1, CDNV, directional CDNV and the trace
ratio all depend on n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ncjax.core.types import Array
from ncjax.nc.geometry import (
    PAIRS_UP_TO,
    Geometry,
    distances,
    double,
    geometry,
    inverse,
    pairs,
    projected,
    undefined_unless,
)
from ncjax.nc.null import Standing
from ncjax.nc.projected import Look, Tilt
from ncjax.nc.stats import ClassStats, matmul

NEAR_FLOOR = 0.5  # share of the floor from which a value says little about the labels
UNSURE = 0.05  # probability of as small a value without signal, above which it says nothing about them
FEW = 10  # examples in the smallest class below which `too_few_per_class` is raised
MANY = 20  # examples of a class from which their own fourth moments are trusted alone
IMBALANCE = 10  # largest class over smallest, above which `imbalanced` is raised
ROUNDING = 30  # spread or separation below this many float32 roundings of the class means raises `float32_limit`
UNDERFLOW = 1e-17  # spread from which its squares lose digits of float32
ROUGH = 1e-3  # share of NC1 that may be rounding of the scatter before a second look is wanted
NORMAL_975 = 1.959964


class Errors(NamedTuple):
    """Standard error of each metric over draws of the examples; NaN where it cannot be had."""

    nc1: Float[Array, ""]
    cdnv: Float[Array, ""]
    trace_ratio: Float[Array, ""]
    directional_cdnv: Float[Array, ""]


class Moments(NamedTuple):
    """How examples scatter within their classes: all that the standard errors are made of. R directions of the means."""

    within: Array  # [R, R] V^T Sigma_W V, V the span of the class means; beyond 256 directions [R], its diagonal
    relative: Float[Array, " K"]  # tr Sigma_k of each class, estimated without bias, over that of the pooled Sigma_W
    q: Float[Array, " K"]  # variance over examples of r^T (k Sigma_B)^+ r, r = h - mu_k: what NC1 averages
    rho: Float[Array, " K"]  # variance over examples of ||r||^2: what CDNV and the trace ratio average
    pooled: Float[Array, ""]  # tr Sigma_W
    tilt: Tilt | None


def moments_of(g: Geometry, stats: ClassStats, look: Look | None, tilt: Tilt | None) -> Moments | None:
    """The moments, from the scatter if there is one and from the look; None with neither."""
    within = projected(stats, g)
    if within is None and look is not None:
        within = look.projected / jnp.maximum(jnp.sum(look.count), 1)
    if within is None:
        return None
    pooled = jnp.sum(g.spread) / jnp.maximum(g.total, 1)
    relative = g.spread / jnp.maximum(g.n - 1, 1) / jnp.where(pooled > 0, pooled, 1)
    q, rho = (x * jnp.square(relative) for x in _gaussian_variances(g, stats, within, pooled))
    if look is not None:
        q, rho = _seen_variances(g, look, q, rho)
    if stats.scatter is not None:
        tilt = _tilt_of_scatter(g, stats.scatter)
    return Moments(within=within, relative=relative, q=q, rho=rho, pooled=pooled, tilt=tilt)


def _gaussian_variances(g: Geometry, stats: ClassStats, within: Array, pooled: Array) -> tuple[Array, Array]:
    """What r^T Sigma_B^+ r and ||r||^2 vary by in Gaussian features: 2 tr (Sigma_W A)^2 for the form r^T A r."""
    inv, dim = inverse(g), g.means.shape[1]
    q = 2 * jnp.sum(jnp.square(within) * inv[None, :] * (inv[:, None] if within.ndim == 2 else inv[None, :]))
    if stats.scatter is not None:
        return q, 2 * jnp.sum(jnp.square(stats.scatter / jnp.maximum(g.total, 1)))
    # At least: what is outside the span of the means may be spread evenly.
    outside = jnp.maximum(pooled - (jnp.trace(within) if within.ndim == 2 else jnp.sum(within)), 0)
    return q, 2 * (jnp.sum(jnp.square(within)) + jnp.square(outside) / max(dim - inv.shape[0], 1))


def _seen_variances(g: Geometry, look: Look, q: Array, rho: Array) -> tuple[Array, Array]:
    """What they vary by in these features; in small classes at least the Gaussian value.

    A few examples about their own mean say too little of how they vary.
    """
    n = jnp.maximum(g.n, 1)
    few, biased = g.n < MANY, n / jnp.maximum(n - 1, 1)
    seen_q = biased * jnp.maximum(look.q2 / n - jnp.square(look.q / n), 0) * jnp.square(look.unit)
    seen_rho = biased * jnp.maximum(look.rho2 / n - jnp.square(look.rho / n), 0)
    return (jnp.where(few, jnp.maximum(q, seen_q), seen_q), jnp.where(few, jnp.maximum(rho, seen_rho), seen_rho))


def _tilt_of_scatter(g: Geometry, scatter: Array) -> Tilt:
    image = matmul(scatter, g.basis) / jnp.maximum(g.total, 1)  # [D, R]
    image = image - matmul(g.basis, matmul(g.basis.T, image))
    return Tilt(outside=matmul(image.T, matmul(scatter, image)) / jnp.maximum(g.total, 1), both=matmul(image.T, image))


def _times(slope: Array, within: Array) -> Array:
    return slope * within[None, :] if within.ndim == 1 else matmul(slope, within)


def _through_means(g: Geometry, m: Moments, slope: Array, within: Array | None = None, other: Array | None = None) -> Array:
    """Variance that the errors of the class means bring: sum_k slope_k^T (Sigma_k / n_k) slope_k.

    Args:
      slope: [K, R] gradient of the metric with respect to each class mean, in the basis of the means.
      within: covariance to use in place of `m.within`.
      other: a second gradient, for the covariance of the two.
    """
    product = _times(slope, m.within if within is None else within) * (slope if other is None else other)
    return jnp.sum(g.keep * m.relative * jnp.sum(product, axis=1) / jnp.maximum(g.n, 1))


def _through_tilting_means(g: Geometry, m: Moments, inside: Array, outside: Array) -> Array:
    """The same where the metric sees Sigma_W along the means, which tilt as they move and see other parts of it.

    Args:
      inside: [K, R] gradient within the span of the means.
      outside: [K, R] the gradient outside is (I - V V^T) Sigma_W V times this.
    """
    found = _through_means(g, m, inside)
    if m.tilt is None:
        return found
    both = _through_means(g, m, inside, m.tilt.both, outside)
    return jnp.maximum(found + 2 * both + _through_means(g, m, outside, m.tilt.outside), 0)


def nc1_variance(g: Geometry, m: Moments) -> Array:
    """Variance of NC1: its gradients at the class means, inside their span and (where that tilts) outside, and `m.q`."""
    inv = inverse(g)
    lever = g.weight[:, None] * g.place * inv[None, :]
    inside, outside = -2 * _times(lever, m.within) * inv[None, :], 2 * lever * inv[None, :]
    return _through_tilting_means(g, m, inside, outside) + jnp.sum(g.n * m.q) / jnp.square(jnp.maximum(g.total, 1))


def cdnv_variance(g: Geometry, m: Moments) -> Array:
    """Variance of CDNV: through the class variances (`m.rho`), and through the distances between the means.

    NaN beyond 4096 classes, where pairs are not kept.
    """
    if g.keep.shape[0] > PAIRS_UP_TO:
        return jnp.full((), jnp.nan)
    n, place, pair = jnp.maximum(g.n, 1), g.place, pairs(g)
    variance = g.spread / n
    apart = jnp.where(pair, 1 / jnp.where(pair, distances(g), 1), 0)
    count = jnp.maximum(jnp.sum(pair.astype(g.k.dtype)), 1)
    pull = (variance[:, None] + variance[None, :]) * jnp.square(apart)
    slope = 2 / count * (matmul(pull, place) - jnp.sum(pull, axis=1, keepdims=True) * place)
    return jnp.sum(g.keep * jnp.square(jnp.sum(apart, axis=1) / count) * m.rho / n) + _through_means(g, m, slope)


def trace_ratio_variance(g: Geometry, m: Moments) -> Array:
    """Variance of the trace ratio: through tr Sigma_W (`m.rho`) and through tr Sigma_B."""
    between = jnp.sum(jnp.maximum(g.values, 0)) / jnp.maximum(g.k, 1)
    slope = 2 * m.pooled / jnp.square(between) / jnp.maximum(g.k, 1) * g.weight[:, None] * g.place
    return jnp.sum(g.n * m.rho) / jnp.square(jnp.maximum(g.total, 1) * between) + _through_means(g, m, slope)


def directional_cdnv_variance(g: Geometry, m: Moments, look: Look) -> Array:
    """Variance of directional CDNV: through u^T Sigma_k u along every line to another mean, and through the means.

    With d = mu_k - mu_l, D its length and A_kl = d^T Sigma_k d, class k stands in A_kl / D^4 and A_lk / D^4. Its mean moves
    them by 2 (Sigma_k + Sigma_l) d / D^4 - 4 (A_kl + A_lk) d / D^6 each; its spread by the mean over examples of
    sum_l (r.d)^2 / D^4, which varies by 2 sum_lm (d_l^T Sigma_k d_m)^2 / (D_l^4 D_m^4) in Gaussian features, and by so much
    more in others as r^T Sigma_B^+ r does. Sigma_k is the pooled one, scaled to the class.
    """
    if m.within.ndim == 1 or not look.toward.size:
        return jnp.full((), jnp.nan)
    place, pair, n = g.place, pairs(g), jnp.maximum(g.n, 1)
    apart = jnp.where(pair, 1 / jnp.where(pair, distances(g), 1), 0)
    along = look.toward / jnp.maximum(look.count, 1)[:, None]
    count = jnp.maximum(jnp.sum(pair.astype(g.k.dtype)), 1)
    turn = 2 * (m.relative[:, None] + m.relative[None, :]) * jnp.square(apart)
    pull = 4 * (along + along.T) * jnp.square(apart) * apart
    outside = (jnp.sum(turn, axis=1, keepdims=True) * place - matmul(turn, place)) / count
    inside = matmul(outside, m.within) - (jnp.sum(pull, axis=1, keepdims=True) * place - matmul(pull, place)) / count
    between = matmul(matmul(place, m.within), place.T)  # [K, K]

    def spread_of(k: Array) -> Array:
        row = between[k]
        products = row[k] - row[None, :] - row[:, None] + between  # d_l^T Sigma_W d_m
        pooled = jnp.diagonal(products)
        weight = jnp.square(apart[k]) * along[k] / jnp.where(pooled > 0, pooled, 1)
        return 2 * jnp.sum(jnp.square(products) * weight[:, None] * weight[None, :])

    spread = jax.lax.map(spread_of, jnp.arange(place.shape[0]))
    inv = inverse(g)
    gaussian = 2 * jnp.square(m.relative) * jnp.sum(jnp.square(m.within) * inv[None, :] * inv[:, None])
    excess = jnp.where(gaussian > 0, m.q / jnp.where(gaussian > 0, gaussian, 1), 1)
    own = jnp.sum(g.keep * excess * spread / n) / jnp.square(count)
    return own + _through_tilting_means(g, m, inside, outside)


def errors_of(g: Geometry, stats: ClassStats, look: Look | None, tilt: Tilt | None = None) -> Errors:
    """`errors` where the geometry is known."""
    m = moments_of(g, stats, look, tilt)
    if m is None:
        return Errors(*(jnp.full((), jnp.nan),) * len(Errors._fields))
    nc1, cdnv, trace_ratio = (
        undefined_unless(g.k >= 2, jnp.sqrt(of(g, m))) for of in (nc1_variance, cdnv_variance, trace_ratio_variance)
    )
    along = jnp.nan if look is None else directional_cdnv_variance(g, m, look)
    directional = undefined_unless(g.k >= 2, jnp.sqrt(along))
    return Errors(nc1=nc1, cdnv=cdnv, trace_ratio=trace_ratio, directional_cdnv=directional)


@double
def errors(stats: ClassStats, look: Look | None = None, tilt: Tilt | None = None, *, weighting: str = "class") -> Errors:
    """Standard errors by the delta method (the infinitesimal jackknife) over examples, with the n_k held fixed.

    A metric f is a function of class means and within-class spread, both of them averages over examples, so that to first
    order f moves by (1/n_k) df/dmu_k . r through the mean and by the example's own part in the average through the spread:

        var f = sum_k (df/dmu_k)^T (Sigma_k / n_k) (df/dmu_k) + sum_k (share of class k)^2 var_k(part) / n_k

    `nc1_variance`, `cdnv_variance`, `trace_ratio_variance` and `directional_cdnv_variance`, which wants a look, write both
    terms out. The value moves with an example
    through the within-class covariance (its r^T Sigma_B^+ r or ||r||^2, whose variance within each class the look has
    summed) and through its class mean (the metric's gradient there, with the covariance of the mean). Without a look
    the first part is that of Gaussian features, from the scatter, and in classes of fewer than 20 examples it is at
    least that. Taken as zero: the third moments that would link the two parts and, with neither scatter nor
    `ncjax.nc.tilt`, the part of NC1's error that comes from the span of the means tilting in features of uneven
    variance. Efron & Tibshirani (1993), ch. 22.
    """
    return errors_of(geometry(stats, weighting), stats, look, tilt)


def interval(value: float, error: float) -> tuple[float, float]:
    """95 % interval of a positive metric, symmetric in its logarithm; NaN where it would span a factor over 10^6."""
    width = NORMAL_975 * error / value if value > 0 else math.nan
    if not 0 <= width < math.log(1e3):
        return math.nan, math.nan
    return value * math.exp(-width), value * math.exp(width)


def scatter_rounding_of(g: Geometry, stats: ClassStats) -> Array:
    """About what part of an NC1 that is read from a float32 scatter may be rounding.

    NC1 weighs a direction of the class means by its inverse eigenvalue, and the scatter knows no variance below some
    2^-23 of its own norm: where features vary least just where their means do, NC1 wants a second look.
    """
    norm = jnp.linalg.norm(stats.scatter) / jnp.maximum(g.total, 1)
    return float(jnp.finfo(jnp.float32).eps) * norm * jnp.sum(inverse(g))


def resolution_of(g: Geometry) -> Array:
    """`resolution` where the geometry is known."""
    rounding = float(jnp.finfo(jnp.float32).eps) * g.norm
    within = jnp.sqrt(jnp.sum(g.spread) / jnp.maximum(g.total, 1))
    smallest = jnp.sqrt(jnp.min(jnp.where(g.used, g.values, jnp.inf)))
    found = jnp.minimum(within, smallest) / jnp.where(rounding > 0, rounding, 1)
    return jnp.where(within < UNDERFLOW, 0, found)


@double
def resolution(stats: ClassStats) -> Array:
    """Spread, or separation where that is smaller, over the float32 rounding of the class means.

    What is smaller than the rounding of the features themselves cannot be in them.
    """
    return resolution_of(geometry(stats))


def near_floor(over: float | None, p: float | None) -> bool:
    """Whether a value says little about the labels: half of its floor or more, or no less than chance would give."""
    return (over is not None and over > NEAR_FLOOR) or (p is not None and p > UNSURE)


def flags(
    *,
    standings: Sequence[Standing],
    rank: int,
    full_rank: int,
    dim: int,
    counts: list[int],
    resolution: float,
    dead: bool,
) -> tuple[str, ...]:
    """What a reader must know before using the numbers.

    `near_floor`: NC1, CDNV, the trace ratio or directional CDNV is not below what labels without signal give (p > 0.05),
    or reaches half of that. `rank_deficient`: Sigma_B has not rank min(K - 1, D). `narrow`: D < K - 1, so that the rank of
    Sigma_B is D; NC1 grows with the rank, and does not compare with that of wider layers. `classes_left_out`: some have
    fewer than two examples. `too_few_per_class`: fewer than 10 in the smallest. `imbalanced`: the largest more than 10
    times the smallest. `dead`: all features are zero, or all the same. `float32_limit`: spread or separation within 30
    float32 roundings of the class means, or NC1 read from a scatter that is too coarse for it.
    """
    used = [n for n in counts if n >= 2]
    raised = {
        "near_floor": any(near_floor(x.over, x.p) for x in standings),
        "dead": dead,
        "rank_deficient": rank < full_rank,
        "narrow": dim < len(used) - 1,
        "classes_left_out": len(used) < len(counts),
        "too_few_per_class": bool(used) and min(used) < FEW,
        "imbalanced": bool(used) and max(used) > IMBALANCE * min(used),
        "float32_limit": resolution < ROUNDING,
    }
    return tuple(name for name, on in raised.items() if on)
