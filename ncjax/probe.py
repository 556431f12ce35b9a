"""Linear probes: multinomial logistic regression by L-BFGS on fixed features, regularisation chosen on validation."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ncjax.types import Array

L2_GRID = (1e-1, 1e-2, 1e-3, 1e-4)  # from strong to weak, each warm-started from the one before
MAX_STEPS = 200
TOLERANCE = 1e-4  # on the largest entry of the gradient


class Probe(NamedTuple):
    """A fitted probe on raw (not standardised) features."""

    weight: np.ndarray  # [K, D]
    bias: np.ndarray  # [K]
    l2: float  # chosen regularisation, on standardised features
    train_accuracy: float
    val_accuracy: float  # NaN without a validation split


@functools.partial(jax.jit, static_argnums=4)
def _fit(start: tuple[Array, Array], features: Array, labels: Array, l2: Array, max_steps: int) -> tuple[Array, Array]:
    def objective(params: tuple[Array, Array]) -> Array:
        weight, bias = params
        logits = jnp.matmul(features, weight.T, precision="highest") + bias
        loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        return loss + 0.5 * l2 * jnp.sum(jnp.square(weight))

    tx = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry):
        params, state, _, i = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=objective)
        largest = jnp.maximum(jnp.max(jnp.abs(grad[0])), jnp.max(jnp.abs(grad[1])))
        return optax.apply_updates(params, updates), state, largest, i + 1

    def unfinished(carry):
        return (carry[2] > TOLERANCE) & (carry[3] < max_steps)

    return jax.lax.while_loop(unfinished, step, (start, tx.init(start), jnp.inf, 0))[0]


def accuracy(weight: Array, bias: Array, features: Array, labels: Array) -> float:
    """Share of argmax(W h + b) = label."""
    return float(np.mean(np.argmax(features @ weight.T + bias, axis=1) == labels))


def fit(train: tuple[np.ndarray, np.ndarray], val: tuple[np.ndarray, np.ndarray] | None, num_classes: int,
        *, l2_grid: tuple[float, ...] = L2_GRID, max_steps: int = MAX_STEPS) -> Probe:
    """Fits a probe by minimising mean cross-entropy + l2/2 ||W||^2 over features standardised on the training split.

    Args:
      train, val: (features [N, D], labels [N]); without `val` the middle of the grid is used.
      num_classes: K.
      l2_grid: regularisation strengths tried, strongest first.
      max_steps: L-BFGS steps at most, for each strength.
    """
    features, labels = train
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    scaled = jnp.asarray((features - mean) / std)
    if val is None:
        l2_grid = (l2_grid[len(l2_grid) // 2],)
    params = (jnp.zeros((num_classes, features.shape[1])), jnp.zeros(num_classes))
    best = None
    for l2 in l2_grid:
        params = _fit(params, scaled, jnp.asarray(labels), jnp.float32(l2), max_steps)
        weight = np.asarray(params[0]) / std
        bias = np.asarray(params[1]) - weight @ mean
        score = accuracy(weight, bias, *val) if val is not None else float("nan")
        if best is None or score > best.val_accuracy:
            best = Probe(weight, bias, l2, accuracy(weight, bias, *train), score)
    return best
