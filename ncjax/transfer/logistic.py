"""Multinomial logistic regression by L-BFGS.

The solver is an L-BFGS that keeps the logits: a line search then costs no product with the features, an iteration two.
Its starting Hessian is that of the mean curvature, c C + l2 I with C the features' covariance. Strengths are tried from
strong to weak, each from where the last one ended, in one program per shape.

With fewer examples than features the solution is a combination of examples, so that everything happens in their N
coordinates: products and the Hessian are N x N. Steps are taken for half a second at a time: in between Ctrl-C is heard,
and progress shown. (The eigenvectors and the Hessian's inverse, before the first step, are one call each.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core import programs
from ncjax.core.types import Array

Show = Callable[[str, int, int, str], None]  # (title, done, total, text), as `runs.run.Run.bar`

MAX_STEPS = 500
TOLERANCE = 1e-4  # on the largest entry of the gradient, scikit-learn's default
MEMORY = 10  # pairs that L-BFGS remembers


class Solution(NamedTuple):
    """Where the solver stopped."""

    params: Array  # [K, D + 1], the bias last
    gradient: Array  # [] largest entry
    steps: Array  # []


def product(a: Array, b: Array) -> Array:
    """The matrix product in full float32."""
    return jnp.matmul(a, b, precision="highest")


def residuals(logits: Array, labels: Array) -> tuple[Array, Array]:
    """(mean cross-entropy, softmax minus one-hot [N, K])."""
    log_p = jax.nn.log_softmax(logits)
    hit = labels[:, None] == jnp.arange(logits.shape[1], dtype=labels.dtype)
    return -jnp.mean(jnp.sum(jnp.where(hit, log_p, 0), axis=1)), jnp.exp(log_p) - hit


class _Point(NamedTuple):
    params: Array  # [K, D + 1]
    logits: Array  # [N, K]
    value: Array
    gradient: Array  # [K, D + 1]


class _Search(NamedTuple):
    t: Array
    low: Array
    high: Array
    value: Array
    slope: Array
    residual: Array
    trials: Array
    done: Array


def _line_search(point: _Point, direction: Array, change: Array, labels: Array, decay: Array) -> _Search:
    """A step that meets the Wolfe conditions (1e-4, 0.9) along `direction`, whose effect on the logits is `change`."""
    slope0 = jnp.sum(point.gradient * direction)
    noise = 1e-6 * jnp.abs(point.value)  # of a mean in float32

    def at(t: Array) -> tuple[Array, Array, Array]:
        value, residual = residuals(point.logits + t * change, labels)
        params = point.params + t * direction
        value += 0.5 * jnp.sum(decay * jnp.square(params))
        return value, jnp.sum(residual * change) / len(labels) + jnp.sum(decay * params * direction), residual

    def tried(t: Array, low: Array, high: Array, trials: Array) -> _Search:
        value, slope, residual = at(t)
        short = value <= point.value + 1e-4 * t * slope0 + noise
        return _Search(t, low, high, value, slope, residual, trials, short & (jnp.abs(slope) <= 0.9 * jnp.abs(slope0)))

    def again(s: _Search) -> _Search:
        # The objective is convex, so its slope grows along the line: a secant of it, kept inside what is known.
        low, high = jnp.where(s.slope < 0, s.t, s.low), jnp.where(s.slope < 0, s.high, s.t)
        secant = s.t * slope0 / (slope0 - s.slope)
        inside = jnp.clip(secant, low + 0.1 * (high - low), high - 0.1 * (high - low))
        beyond = jnp.where(s.slope < slope0, 4 * s.t, jnp.clip(secant, 1.5 * s.t, 4 * s.t))
        t = jnp.where(jnp.isfinite(high), inside, beyond)
        return tried(t, low, high, s.trials + 1)

    zero = jnp.zeros((), point.value.dtype)
    first = tried(zero + 1, zero, zero + jnp.inf, jnp.int32(1))
    return jax.lax.while_loop(lambda s: ~s.done & (s.trials < 12), again, first)


def _downhill(gradient: Array, pairs: tuple[Array, ...], inverse: Array) -> Array:
    """-H gradient by the two-loop recursion, H starting from a multiple of `inverse` ([D + 1, D + 1])."""
    s, y, rho = pairs  # newest last; rho 0 where there is none yet
    alphas, q = [], gradient
    for i in reversed(range(MEMORY)):
        alpha = rho[i] * jnp.sum(s[i] * q)
        alphas.append(alpha)
        q = q - alpha * y[i]
    curved = product(y[-1], inverse)
    norm = jnp.sum(y[-1] * curved)
    scale = jnp.where(rho[-1] > 0, jnp.sum(s[-1] * y[-1]) / jnp.where(norm > 0, norm, 1), 1)
    r = scale * product(q, inverse)
    for i, alpha in zip(range(MEMORY), reversed(alphas), strict=True):
        r = r + s[i] * (alpha - rho[i] * jnp.sum(y[i] * r))
    return -r


class _State(NamedTuple):
    point: _Point
    pairs: tuple[Array, ...]  # of L-BFGS, newest last
    steps: Array
    going: Array  # False where there is no way down that float32 can see


def _decay(features: Array, l2: Array) -> Array:
    width = features.shape[1]
    return l2 * (jnp.arange(width) < width - 1)


@programs.jit
def _begin(params: Array, features: Array, labels: Array, second_moment: Array, l2: Array) -> tuple[_State, Array]:
    """Where the minimisation starts, and the inverse of the Hessian there."""
    decay, logits = _decay(features, l2), product(features, params.T)
    value, residual = residuals(logits, labels)
    gradient = product(residual.T, features) / len(features) + decay * params
    p = jax.nn.softmax(logits)
    point = _Point(params, logits, value + 0.5 * jnp.sum(decay * jnp.square(params)), gradient)
    hessian = jnp.maximum(jnp.mean(p * (1 - p)), 1e-4) * second_moment + jnp.diag(decay + 1e-6)
    inverse = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(hessian), jnp.eye(len(hessian), dtype=features.dtype))
    history = jnp.zeros((MEMORY, *params.shape), params.dtype)
    pairs = (history, history, jnp.zeros(MEMORY, params.dtype))
    return _State(point, pairs, jnp.int32(0), jnp.bool_(True)), inverse


def _largest(gradient: Array) -> Array:
    return jnp.max(jnp.abs(gradient))


@programs.jit
def _advance(
    state: _State, features: Array, labels: Array, inverse: Array, l2: Array, tolerance: Array, until: Array
) -> tuple[_State, Array]:
    """L-BFGS to step `until` at most, or to the minimum; and whether that was reached.

    Minimises mean cross-entropy + l2/2 ||W||^2 over features [N, D + 1] whose last column is 1.
    """
    count, decay = len(features), _decay(features, l2)

    def step(carry: _State) -> _State:
        point, (s, y, rho), steps, _ = carry
        direction = _downhill(point.gradient, (s, y, rho), inverse)
        change = product(features, direction.T)
        found = _line_search(point, direction, change, labels, decay)
        params = point.params + found.t * direction
        gradient = product(found.residual.T, features) / count + decay * params
        ds, dy = params - point.params, gradient - point.gradient
        inner = jnp.sum(ds * dy)
        fresh = inner > 1e-12 * jnp.sum(jnp.square(dy))
        shifted = tuple(
            jnp.concatenate([old[1:], new[None]]) for old, new in ((s, ds), (y, dy), (rho, 1 / jnp.where(fresh, inner, 1)))
        )
        pairs = tuple(jnp.where(fresh, new, old) for new, old in zip(shifted, (s, y, rho), strict=True))
        new = _Point(params, point.logits + found.t * change, found.value, gradient)
        return _State(new, pairs, steps + 1, found.done & fresh)

    def unfinished(carry: _State) -> Array:
        return (_largest(carry.point.gradient) > tolerance) & carry.going

    state = jax.lax.while_loop(lambda carry: unfinished(carry) & (carry.steps < until), step, state)
    return state, ~unfinished(state)


def in_parts(advance: Callable[[int], bool], total: int, show: Show | None, title: str) -> None:
    """Calls `advance` with rising step numbers until it is done: so many steps at a time as take half a second."""
    done, many = 0, 1
    while done < total:
        started = time.perf_counter()
        done = min(done + many, total)
        if advance(done):
            break
        seconds = time.perf_counter() - started
        many = max(1, min(2 * many if seconds < 0.25 else many, round(many * 0.5 / max(seconds, 1e-3))))
        if show is not None and seconds > 0.1:
            show(title, done, total, f"step {done}, at most {total}")


def _minimise(
    params: Array,
    features: Array,
    labels: Array,
    second_moment: Array,
    l2: Array,
    tolerance: Array,
    *,
    max_steps: int,
    show: Show | None,
) -> Solution:
    """`_advance` to the minimum, in parts."""
    state, inverse = _begin(params, features, labels, second_moment, l2)

    def advance(until: int) -> bool:
        nonlocal state
        state, done = _advance(state, features, labels, inverse, l2, tolerance, jnp.int32(until))
        return bool(done)

    in_parts(advance, max_steps, show, "probe")
    return Solution(state.point.params, _largest(state.point.gradient), state.steps)


class Span(NamedTuple):
    """Examples as coordinates in the directions that they span."""

    coordinates: np.ndarray  # [N, R]
    basis: np.ndarray  # [R, D], orthonormal rows

    def shorten(self, params: Array) -> Array:
        """[K, D + 1] -> [K, R + 1]."""
        weight = np.asarray(params[:, :-1]) @ self.basis.T
        return jnp.concatenate([jnp.asarray(weight), params[:, -1:]], axis=1)

    def widen(self, found: Solution) -> Solution:
        """[K, R + 1] -> [K, D + 1]."""
        weight = np.asarray(found.params[:, :-1]) @ self.basis
        return found._replace(params=jnp.concatenate([jnp.asarray(weight), found.params[:, -1:]], axis=1))


def span_of(features: np.ndarray) -> Span | None:
    """The span of fewer examples than features, by the eigenvectors of the N x N products in float64; else None."""
    if len(features) >= features.shape[1]:
        return None
    x = features.astype(np.float64)
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > 1e-12 * max(values[-1], 1e-300)
    root = np.sqrt(values[kept])
    basis = (vectors[:, kept].T @ x) / root[:, None]
    return Span((vectors[:, kept] * root).astype(features.dtype), basis.astype(features.dtype))


@programs.jit
def _moments(features: Array) -> Array:
    return product(features.T, features) / len(features)


def solve(
    features: Array,
    labels: Array,
    num_classes: int,
    l2_path: tuple[float, ...],
    *,
    start: Array | None = None,
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
    show: Show | None = None,
    span: Span | None = None,
) -> list[Solution]:
    """Multinomial logistic regression along a path of strengths, each warm-started from the one before.

    min over W [K, D], b [K]:  (1/N) sum_i -log softmax(W x_i + b)_{y_i} + l2/2 ||W||^2,  scikit-learn's with l2 = 1/(C N)
    for K >= 3 (for two classes it fits a single row).

    Args:
      features: [N, D], standardised or at least centred.
      labels: [N].
      num_classes: K.
      l2_path: strengths, strongest first.
      start: [K, D + 1] where the first starts; None for zero.
      tolerance: on the largest entry of the gradient.
      max_steps: L-BFGS steps at most, for each strength.
      show: told (title, steps done, steps at most, text) now and then, as `Run.bar` is.
      span: of `span_of(features)`, where it was computed before.
    """
    span = span_of(np.asarray(features)) if span is None else span
    features = jnp.asarray(features if span is None else span.coordinates)
    start = start if start is None or span is None else span.shorten(start)
    wide = jnp.concatenate([features, jnp.ones((len(features), 1), features.dtype)], axis=1)
    labels, second_moment = jnp.asarray(labels, jnp.int32), _moments(wide)
    params, out = jnp.zeros((num_classes, wide.shape[1]), features.dtype) if start is None else start, []
    for l2 in l2_path:
        l2, limit = (jnp.asarray(x, features.dtype) for x in (l2, tolerance))
        out.append(_minimise(params, wide, labels, second_moment, l2, limit, max_steps=max_steps, show=show))
        params = out[-1].params
    return out if span is None else [span.widen(found) for found in out]
