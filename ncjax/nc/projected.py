"""The second look: what only the features themselves can tell, in the K - 1 directions of the class means.

A `Frame` holds what the first look found; a `Look` holds plain sums over examples, so that looks at parts of a data set,
on any devices, add up. Where D is wide it costs 2 N D K operations in place of the scatter's 2 N D^2.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.nc.geometry import PAIRS_UP_TO, Geometry, check_weighting, double, geometry_of, inverse
from ncjax.nc.kinds import expect
from ncjax.nc.stats import ClassStats, by_class, check_precision, check_stats, clean, matmul
from ncjax.nc.stats import merge as merge_stats

Seen = TypeVar("Seen", ClassStats, "Look")

FULL_UP_TO = 256  # directions (classes) up to which a look keeps all of `projected` (`toward`)


class Frame(NamedTuple):
    """What a second look needs of the first. K classes, R = min(K - 1, D) directions."""

    keep: Float[Array, " K"]  # 1 for a usable class
    anchor: Float[Array, "K D"]  # class means as anchor + shift; the global mean for classes left out
    shift: Array | None  # [K, D]; None for zero
    directions: Array  # [D, R] orthonormal directions of the class means; then, with a classifier, its rows: [D, R + K]
    inverse: Float[Array, " R"]  # 1 / (unit s^2), zero outside the numerical rank
    unit: Float[Array, ""]  # 1 / largest s^2: apart, so that `inverse` stays near 1 whatever the scale of the features
    place: Float[Array, "K R"]  # centred class means in the basis
    between: Array | None  # [K, K] place place^T (none beyond 256 classes)
    logits: Array | None  # [K, K] classifier at each class mean (none beyond 4096 classes)
    bias: Array | None  # [K] of the classifier


class Look(NamedTuple):
    """Sums over examples, about the class means of a frame. R as in `Frame`; `merge` adds two looks."""

    unit: Float[Array, ""]  # the frame's, by which `q` is to be multiplied
    count: Float[Array, " K"]  #
    q: Float[Array, " K"]  # sum of r^T (k Sigma_B)^+ r / unit, r = h - mu_k: NC1's numerator
    q2: Float[Array, " K"]  # sum of its square
    rho: Float[Array, " K"]  # sum of ||r||^2
    rho2: Float[Array, " K"]  # sum of its square
    projected: Array  # [R, R] (beyond 256 directions [R], the diagonal) sum of p p^T, p = r in the basis
    toward: Array  # [K, K] (none beyond 256 classes) sum over class k of (r . (mu_k - mu_k'))^2
    decided: Float[Array, " K"]  # examples of all classes, those left out of the rest too
    near: Float[Array, " K"]  # of them, those whose nearest class mean is their own
    agree: Float[Array, " K"]  # those whose nearest class mean is what the classifier decides
    correct: Float[Array, " K"]  # those the classifier decides rightly


BY_CLASS = tuple(name for name in Look._fields if name not in ("unit", "projected", "toward"))  # [K] each


class Tilt(NamedTuple):
    """With V the span of the class means and C = (I - V V^T) Sigma_W V [D, R]."""

    outside: Float[Array, "R R"]  # C^T Sigma_W C
    both: Float[Array, "R R"]  # C^T C


def frame(stats: ClassStats, classifier: tuple[Array, Array] | None = None, *, weighting: str = "class") -> Frame:
    """The frame of these class means.

    Args:
      stats: first look; its means are what the second look measures about.
      classifier: (weight [K, D], bias [K]), for NC4 and accuracy.
      weighting: "class" or "sample", see `ncjax.nc.nc1`.
    """
    g = geometry_of(check_stats(stats), check_weighting(weighting))
    return frame_of(g, stats, classifier)


@double
def frame_of(g: Geometry, stats: ClassStats, classifier: tuple[Array, Array] | None) -> Frame:
    """`frame` where the geometry is known."""
    logits, directions, keep = None, g.basis, g.keep[:, None] > 0
    if classifier is not None:
        if g.keep.shape[0] <= PAIRS_UP_TO:
            logits = matmul(g.means + g.middle[None, :], classifier[0].T) + classifier[1][None, :]
        directions = jnp.concatenate([directions, classifier[0].T], axis=1)
    unit = jnp.where(g.values[0] > 0, g.values[0], 1)
    between = matmul(g.place, g.place.T) if g.place.shape[0] <= FULL_UP_TO else None
    anchor, shift = jnp.where(keep, stats.anchor, g.middle[None, :]), jnp.where(keep, stats.shift, 0)
    return Frame(
        keep=g.keep,
        anchor=anchor,
        shift=shift,
        directions=directions,
        inverse=inverse(g) * unit,
        unit=1 / unit,
        place=g.place,
        between=between,
        logits=logits,
        bias=None if classifier is None else classifier[1],
    )


def unseen(frame: Frame) -> Look:
    """The look at no examples."""
    expect(frame, Frame, "frame", "nc.frame")
    k, r = frame.place.shape
    zeros = functools.partial(jnp.zeros, dtype=frame.anchor.dtype)
    return Look(
        unit=frame.unit,
        projected=zeros((r, r) if r <= FULL_UP_TO else r),
        toward=zeros((k, k) if k <= FULL_UP_TO else 0),
        **{name: zeros(k) for name in BY_CLASS},
    )


def look(
    seen: Look, frame: Frame, features: Array, labels: Array, mask: Array | None = None, *, decisions: bool = True
) -> Look:
    """Adds a batch to a look.

    Args:
      seen: what was looked at before, at first `unseen(frame)`.
      frame: the class means looked from: of the same features, or of the training set for test features.
      features, labels, mask: as for `observe`.
      decisions: also find the nearest class means, the classifier's decisions and `toward`: 2 N K^2 operations more,
        and 2 N D K with a classifier. What is not looked for is NaN.

    Raises:
      UserError: shapes do not fit, or labels are no integers.
    """
    expect(frame, Frame, "frame", "nc.frame")
    expect(seen, Look, "seen", "nc.unseen(frame)")
    check_precision(frame.anchor, "the frame's class means")
    num_classes, dtype = frame.keep.shape[0], frame.anchor.dtype
    features, labels, real = clean(features, labels, mask, dtype, frame.anchor.shape)
    kept = real * frame.keep[labels]
    residual = _residual(frame, features, labels) * real[:, None]  # [N, D]
    sums = functools.partial(by_class, labels=labels, num_classes=num_classes)
    rank = frame.place.shape[1]
    p = matmul(residual, frame.directions if decisions else frame.directions[:, :rank])  # [N, R (+ K)]
    p, logits = p[:, :rank], p[:, rank:]
    q = kept * jnp.sum(jnp.square(p) * frame.inverse[None, :], axis=1)
    rho = kept * jnp.sum(jnp.square(residual), axis=1)
    own = kept[:, None] * p
    spread = matmul(own.T, p) if seen.projected.ndim == 2 else jnp.sum(own * p, axis=0)
    rows = {"count": kept, "q": q, "q2": jnp.square(q), "rho": rho, "rho2": jnp.square(rho)}
    toward = jnp.full_like(seen.toward, jnp.nan)
    if decisions:
        if toward.size and frame.between is not None:
            t = matmul(p, frame.place.T)  # [N, K] r . (mu_k - mu_G)
            toward = sums(kept[:, None] * jnp.square(jnp.take_along_axis(t, labels[:, None], axis=1) - t))
            score = t + frame.between[labels]
        else:
            score = matmul(p + frame.place[labels], frame.place.T)
        half = jnp.where(frame.keep > 0, 0.5 * jnp.sum(jnp.square(frame.place), axis=1), jnp.inf)
        nearest = _first_max(score - half[None, :])
        rows |= {"decided": real, "near": jnp.where(nearest == labels, real, 0)}
        if frame.bias is not None:
            decided = _first_max(logits + _at_means(frame, labels, rank))
            rows |= {"agree": jnp.where(decided == nearest, real, 0), "correct": jnp.where(decided == labels, real, 0)}
    not_looked_for = jnp.full_like(real, jnp.nan)
    found = sums(jnp.stack([rows.get(name, not_looked_for) for name in BY_CLASS], axis=1)).T  # [9, K]
    by_class_sums = dict(zip(BY_CLASS, found, strict=True))
    return merge(seen, Look(unit=frame.unit, projected=spread, toward=toward, **by_class_sums))


def _at_means(frame: Frame, labels: Array, rank: int) -> Array:
    """[N, K] the classifier at the class mean of each example."""
    if frame.logits is not None:
        return frame.logits[labels]
    mean = frame.anchor[labels] if frame.shift is None else frame.anchor[labels] + frame.shift[labels]
    return matmul(mean, frame.directions[:, rank:]) + jnp.asarray(frame.bias)[None, :]


def _residual(frame: Frame, features: Array, labels: Array) -> Array:
    residual = features - frame.anchor[labels]
    return residual if frame.shift is None else residual - frame.shift[labels]


def tilt(frame: Frame, features: Array, labels: Array) -> Tilt:
    """What NC1 sees of Sigma_W outside the span of the class means, as that span tilts with them.

    Estimated without bias from three disjoint thirds of the examples given, of which a few thousand, of all classes in
    turn, are enough for an interval.
    """
    basis = frame.directions[:, : frame.place.shape[1]]
    third = features.shape[0] // 3
    residual = _residual(frame, features.astype(frame.anchor.dtype), labels) * frame.keep[labels][:, None]
    a, b, c = (residual[i : 3 * third : 3] for i in range(3))

    def image(r: Array) -> Array:  # [R, D]
        found = matmul(matmul(r, basis).T, r) / third
        return found - matmul(matmul(found, basis), basis.T)

    one, two = image(a), image(b)
    outside, both = matmul(matmul(one, c.T), matmul(c, two.T)) / third, matmul(one, two.T)
    return Tilt((outside + outside.T) / 2, (both + both.T) / 2)


def _first_max(scores: Array) -> Array:
    """[N] int32 argmax over scores [N, K], the first of equals; K where a row has none (NaN).

    A maximum, then a minimum of indices: several times as fast on a CPU as a reduction that carries the index along.
    """
    index = jnp.arange(scores.shape[1], dtype=jnp.int32)[None, :]
    best = jnp.max(scores, axis=1, keepdims=True)
    return jnp.min(jnp.where(scores == best, index, scores.shape[1]), axis=1)


def merge(a: Seen, b: Seen) -> Seen:
    """The statistics, or the look from one frame, of both sets of examples; see `ncjax.nc.stats.merge`.

    Raises:
      UserError: they are neither, or of different kinds or sizes.
    """
    if not isinstance(a, Look):
        return merge_stats(a, b)  # pyright: ignore[reportArgumentType,reportReturnType]
    expect(b, Look, "the second look", "nc.look")
    if jax.tree.map(jnp.shape, a) != jax.tree.map(jnp.shape, b):
        raise UserError("cannot merge looks from frames of different sizes")
    return jax.tree.map(jnp.add, a, b)._replace(unit=a.unit)
