"""Linear probes: multinomial logistic regression on fixed features, its regularisation chosen on validation.

The solver is an L-BFGS that keeps the logits: a line search then costs no product with the features, an iteration two.
Its starting Hessian is that of the mean curvature, c C + l2 I with C the features' covariance. Strengths are tried from
strong to weak, each from where the last one ended, in one program per shape.

With fewer examples than features the solution is a combination of examples, so that everything happens in their N
coordinates: products and the Hessian are N x N. Steps are taken for half a second at a time: in between Ctrl-C is heard,
and progress shown. (The eigenvectors and the Hessian's inverse, before the first step, are one call each.)
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core import programs
from ncjax.core.types import Array

Show = Callable[[str, int, int, str], None]  # (title, done, total, text), as `runs.run.Run.bar`

L2_GRID = (1e-1, 1e-2, 1e-3, 1e-4)  # from strong to weak, each warm-started from the one before
L2_ENDS = (1e3, 1e-7)  # as far as `fit` widens a path whose best is at an end
MAX_STEPS = 500
TOLERANCE = 1e-4  # on the largest entry of the gradient, scikit-learn's default
FIT_TOLERANCE = 1e-5  # in `fit`: with more features than examples a looser one is met before weak strengths differ
MEMORY = 10  # pairs that L-BFGS remembers
FRACTIONS = (0.05, 0.2, 0.5, 1.0)  # of the features, the largest group norms first
GROUP_SHARE = 0.1  # strength of the group lasso, as a share of the one at which every weight is zero
GROUP_STEPS = 200


class Probe(NamedTuple):
    """A fitted probe on raw (not standardised) features."""

    weight: np.ndarray  # [K, D]
    bias: np.ndarray  # [K]
    l2: float  # chosen regularisation, on standardised features
    train_accuracy: float
    val_accuracy: float  # NaN without a validation split
    gradient: float = 0.0  # largest entry of the gradient where the chosen fit stopped
    steps: int = 0  # L-BFGS steps over the whole path
    kept: float = 1.0  # share of features with weights
    at_end: bool = False  # whether the strength is the strongest or the weakest that may be tried


class Solution(NamedTuple):
    """Where the solver stopped."""

    params: Array  # [K, D + 1], the bias last
    gradient: Array  # [] largest entry
    steps: Array  # []


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _residual(logits: Array, labels: Array) -> tuple[Array, Array]:
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
        value, residual = _residual(point.logits + t * change, labels)
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
    curved = _product(y[-1], inverse)
    norm = jnp.sum(y[-1] * curved)
    scale = jnp.where(rho[-1] > 0, jnp.sum(s[-1] * y[-1]) / jnp.where(norm > 0, norm, 1), 1)
    r = scale * _product(q, inverse)
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
    decay, logits = _decay(features, l2), _product(features, params.T)
    value, residual = _residual(logits, labels)
    gradient = _product(residual.T, features) / len(features) + decay * params
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
        change = _product(features, direction.T)
        found = _line_search(point, direction, change, labels, decay)
        params = point.params + found.t * direction
        gradient = _product(found.residual.T, features) / count + decay * params
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


def _in_parts(advance: Callable[[int], bool], total: int, show: Show | None, title: str) -> None:
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

    _in_parts(advance, max_steps, show, "probe")
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
    return _product(features.T, features) / len(features)


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


def _gradient(features: Array, labels: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    """Of the mean cross-entropy."""
    _, residual = _residual(_product(features, weight.T) + bias, labels)
    return _product(residual.T, features) / len(features), jnp.mean(residual, axis=0)


@functools.partial(programs.jit, static_argnums=2)
def _group_begin(features: Array, labels: Array, num_classes: int) -> tuple[Any, Array, Array]:
    """(where the group lasso starts, its step, its strength)."""
    count, width = features.shape

    def power(_, v: Array) -> Array:
        v = _product(features.T, _product(features, v)) / count
        return v / jnp.linalg.norm(v)

    v = jax.lax.fori_loop(0, 30, power, jnp.ones(width, features.dtype) / jnp.sqrt(width))
    rate = 1 / (0.55 * jnp.maximum(jnp.linalg.norm(_product(features, v)) ** 2 / count, 1.0))
    weight, bias = jnp.zeros((num_classes, width), features.dtype), jnp.zeros(num_classes, features.dtype)
    strength = GROUP_SHARE * jnp.max(jnp.linalg.norm(_gradient(features, labels, weight, bias)[0], axis=0))
    return ((weight, bias), (weight, bias), jnp.ones((), features.dtype)), rate, strength


@programs.jit
def _group_advance(carry: Any, features: Array, labels: Array, rate: Array, strength: Array, steps: Array) -> Any:
    def step(_, carry):
        (weight, bias), (ahead_w, ahead_b), t = carry
        dw, db = _gradient(features, labels, ahead_w, ahead_b)
        moved = ahead_w - rate * dw
        norm = jnp.linalg.norm(moved, axis=0)
        new = moved * jnp.maximum(1 - rate * strength / jnp.maximum(norm, 1e-12), 0), ahead_b - rate * db
        t_new = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
        ahead = tuple(n + (t - 1) / t_new * (n - o) for n, o in zip(new, (weight, bias), strict=True))
        return new, ahead, t_new

    return jax.lax.fori_loop(0, steps, step, carry)


def _group_norms(features: Array, labels: Array, num_classes: int, show: Show | None = None) -> tuple[Array, Array]:
    """(||W[:, d]|| [D], norms of the loss's gradient [D]) at the minimum of mean cross-entropy + lambda sum_d ||W[:, d]||.

    By accelerated proximal gradient. Where a norm is zero, the gradient says how near the feature is to having a weight.
    """
    carry, rate, strength = _group_begin(features, labels, num_classes)
    taken = 0

    def advance(until: int) -> bool:
        nonlocal carry, taken
        carry, taken = _group_advance(carry, features, labels, rate, strength, jnp.int32(until - taken)), until
        jax.block_until_ready(carry)
        return False

    _in_parts(advance, GROUP_STEPS, show, "group lasso")
    (weight, bias), _, _ = carry
    return jnp.linalg.norm(weight, axis=0), jnp.linalg.norm(_gradient(features, labels, weight, bias)[0], axis=0)


def accuracy(weight: Array, bias: Array, features: Array, labels: Array) -> float:
    """Share of argmax(W h + b) = label."""
    return float(np.mean(np.argmax(features @ weight.T + bias, axis=1) == labels))


Pair = tuple[np.ndarray, np.ndarray]  # features [N, D], labels [N]


def fit(
    train: Pair,
    val: Pair | None,
    num_classes: int,
    *,
    l2_grid: tuple[float, ...] = L2_GRID,
    keep: np.ndarray | None = None,
    tolerance: float = FIT_TOLERANCE,
    max_steps: int = MAX_STEPS,
    show: Show | None = None,
) -> Probe:
    """Fits a probe to features standardised on the training split; its strength is the best on validation.

    Where the best is an end of the path, the path goes on by factors of ten: to stronger ones while they are no worse, to
    weaker ones, which take long, while they are better. Of equals the one nearest to the first path is taken, and there the
    strongest.

    Args:
      train, val: (features [N, D], labels [N]); without `val` the middle of the grid is used.
      num_classes: K.
      l2_grid: regularisation strengths tried first, strongest first, see `solve`.
      keep: [D] booleans, the features that may have weights; None for all.
      tolerance, max_steps, show: see `solve`.
    """
    features, labels = train
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    chosen = np.arange(features.shape[1]) if keep is None else np.flatnonzero(keep)
    if val is None:
        l2_grid = (l2_grid[len(l2_grid) // 2],)
    scaled = (features[:, chosen] - mean[chosen]) / std[chosen]

    span = span_of(scaled)

    def probes(l2_path: tuple[float, ...], start: Array | None = None) -> list[tuple[Probe, Array]]:
        path = solve(
            scaled,
            labels,
            num_classes,
            l2_path,
            start=start,
            tolerance=tolerance,
            max_steps=max_steps,
            show=show,
            span=span,
        )
        made = functools.partial(_probe, mean=mean, std=std, chosen=chosen, train=train, val=val)
        return [(made(found, l2), found.params) for l2, found in zip(l2_path, path, strict=True)]

    tried = probes(l2_grid)
    best = max((p for p, _ in tried), key=lambda p: p.val_accuracy) if val is not None else tried[0][0]
    if val is not None and len(l2_grid) > 1:
        (strongest, _), (weakest, end) = tried[0], tried[-1]
        if best.l2 == strongest.l2:
            while strongest.l2 < L2_ENDS[0] / 1.5 and strongest.val_accuracy >= best.val_accuracy:
                strongest, _ = (tried := [*tried, *probes((10 * strongest.l2,))])[-1]
                best = max(best, strongest, key=lambda p: p.val_accuracy)
        elif best.l2 == weakest.l2:
            while best.l2 == weakest.l2 and weakest.l2 > 1.5 * L2_ENDS[1]:
                weakest, end = (tried := [*tried, *probes((weakest.l2 / 10,), end)])[-1]
                best = max(best, weakest, key=lambda p: p.val_accuracy)
    return best._replace(
        steps=sum(p.steps for p, _ in tried),
        kept=1.0 if keep is None else float(np.mean(keep)),
        at_end=not L2_ENDS[1] * 1.5 < best.l2 < L2_ENDS[0] / 1.5,
    )


def _probe(
    found: Solution, l2: float, *, mean: np.ndarray, std: np.ndarray, chosen: np.ndarray, train: Pair, val: Pair | None
) -> Probe:
    """A solution on the chosen features, standardised, as a probe on raw ones."""
    params = np.asarray(found.params)
    weight = np.zeros((len(params), len(mean)), params.dtype)
    weight[:, chosen] = params[:, :-1] / std[chosen]
    bias = params[:, -1] - weight @ mean
    return Probe(
        weight=weight,
        bias=bias,
        l2=l2,
        train_accuracy=accuracy(weight, bias, *train),
        val_accuracy=accuracy(weight, bias, *val) if val is not None else float("nan"),
        gradient=float(found.gradient),
        steps=int(found.steps),
    )


def fit_sparse(
    train: Pair,
    val: Pair | None,
    num_classes: int,
    *,
    fractions: tuple[float, ...] = FRACTIONS,
    l2_grid: tuple[float, ...] = L2_GRID,
    show: Show | None = None,
) -> Probe:
    """Head2Toe's probe (Evci et al., 2022): features are ranked by group lasso, and how many to keep is validated.

    Args:
      train, val, num_classes, l2_grid, show: as for `fit`; without `val` the largest fraction is used.
      fractions: shares of the features to try.
    """
    features, labels = train
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    norms, pull = _group_norms(jnp.asarray(scaled), jnp.asarray(labels, jnp.int32), num_classes, show)
    order = np.lexsort((-np.asarray(pull), -np.asarray(norms)))
    best = None
    for fraction in fractions if val is not None else fractions[-1:]:
        keep = np.zeros(features.shape[1], bool)
        keep[order[: max(1, round(fraction * len(order)))]] = True
        found = fit(train, val, num_classes, l2_grid=l2_grid, keep=keep, show=show)
        if best is None or found.val_accuracy > best.val_accuracy:
            best = found
    assert best is not None, "nothing to try"
    return best
