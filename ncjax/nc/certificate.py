"""How often a nearest-class-mean classifier of few examples can err, from statistics of the features alone."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Float

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.nc.geometry import Geometry, distances, double, geometry, pairs, undefined_unless
from ncjax.nc.projected import Look
from ncjax.nc.stats import ClassStats


def pair_errors(g: Geometry, look: Look, shots: int) -> Float[Array, "K K"]:
    """What bounds the chance that an example of class i lies nearer to the estimated mean of class j than to its own.

    With z the example less its mean, e_i and e_j the errors of the means of m examples, d = mu_i - mu_j and D = ||d||,

        S = ||z + d - e_j||^2 - ||z - e_i||^2 = D^2 + 2 d.z - 2 d.e_j + ||e_j||^2 - ||e_i||^2 - 2 z.(e_j - e_i)

    is negative where it does. Its mean is M = D^2 + (s_j - s_i) / m with s = tr Sigma; z, e_i and e_j being independent
    with mean zero, its variance is at most

        V = 4 d'Sigma_i d + 2 (4 d'Sigma_j d / m + v_j) + v_i + (4 / m) (s_i^2 + s_i s_j),
        v = (E||z||^4 - s^2) / m^3 + 2 (m - 1) s^2 / m^3   for each class: what ||e||^2 varies by,

    where tr(Sigma Sigma') is bounded by s s', and the two terms of e_j by twice their own variances. Cantelli's inequality
    gives V / (V + M^2) where M > 0. d'Sigma_i d / D^4 is the directional CDNV: it is what is left as m grows, and the rest
    is CDNV's part (the bound of Luthra, Salunkhe & Galanti, 2026, has these two terms; these constants are derived here).

    Returns:
      [K, K], at most 1; 0 on the diagonal and for classes left out.
    """
    pair, square, m = pairs(g), distances(g), float(shots)
    n = jnp.maximum(look.count, 1)
    along, spread, fourth = look.toward / n[:, None], look.rho / n, look.rho2 / n
    wander = (fourth - jnp.square(spread) + 2 * (m - 1) * jnp.square(spread)) / m**3
    mean = square + (spread[None, :] - spread[:, None]) / m
    variance = (
        4 * along
        + 2 * (4 * along.T / m + wander[None, :])
        + wander[:, None]
        + 4 / m * spread[:, None] * (spread[:, None] + spread[None, :])
    )
    bound = jnp.where(mean > 0, variance / jnp.where(mean > 0, variance + jnp.square(mean), 1), 1.0)
    return jnp.where(pair, bound, 0)


@double
def few_shot_certificate(stats: ClassStats, look: Look, *, shots: int, ways: int | None = None) -> Float[Array, ""]:
    """An upper bound of the expected error of nearest class means estimated from m = `shots` examples per class.

    (1/K) sum_i min(1, sum_{j != i} V_ij / (V_ij + M_ij^2)), see `pair_errors`. It holds for examples and episodes drawn,
    with replacement, from the examples that the statistics are of: of other ones of the same classes as far as these speak
    for them. With w = `ways` of the K classes, drawn at random for each episode, the sum over the others is (w - 1)/(K - 1)
    of that over all: the bound of a random one, times their number. 1 says nothing. NaN with fewer than two usable classes.

    Args:
      stats: of the features.
      look: second look at them, from their own frame.
      shots: m.
      ways: classes of an episode; None for all.

    Raises:
      UserError: m below 1, ways below 2, or beyond 256 classes, where a look keeps too little for it.
    """
    if shots < 1:
        raise UserError(f"shots={shots}: at least 1")
    if ways is not None and ways < 2:
        raise UserError(f"ways={ways}: at least 2")
    if not look.toward.size:
        raise UserError("the few-shot certificate is had for up to 256 classes")
    g = geometry(stats)
    others = 1.0 if ways is None else jnp.minimum((ways - 1) / jnp.maximum(g.k - 1, 1), 1)
    each = jnp.minimum(others * jnp.sum(pair_errors(g, look, shots), axis=1), 1)
    return undefined_unless(g.k >= 2, jnp.sum(g.keep * each) / jnp.maximum(g.k, 1))
