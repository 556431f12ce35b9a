"""Group lasso on the weights of each feature: which features a classifier needs."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ncjax.core import programs
from ncjax.core.types import Array
from ncjax.transfer.logistic import Show, in_parts, product, residuals

SHARE = 0.1  # strength of the group lasso, as a share of the one at which every weight is zero
STEPS = 200  # of accelerated proximal gradient


def _gradient(features: Array, labels: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    """Of the mean cross-entropy."""
    _, residual = residuals(product(features, weight.T) + bias, labels)
    return product(residual.T, features) / len(features), jnp.mean(residual, axis=0)


@functools.partial(programs.jit, static_argnums=2)
def _begin(features: Array, labels: Array, num_classes: int) -> tuple[Any, Array, Array]:
    """(where the group lasso starts, its step, its strength)."""
    count, width = features.shape

    def power(_, v: Array) -> Array:
        v = product(features.T, product(features, v)) / count
        return v / jnp.linalg.norm(v)

    v = jax.lax.fori_loop(0, 30, power, jnp.ones(width, features.dtype) / jnp.sqrt(width))
    rate = 1 / (0.55 * jnp.maximum(jnp.linalg.norm(product(features, v)) ** 2 / count, 1.0))
    weight, bias = jnp.zeros((num_classes, width), features.dtype), jnp.zeros(num_classes, features.dtype)
    strength = SHARE * jnp.max(jnp.linalg.norm(_gradient(features, labels, weight, bias)[0], axis=0))
    return ((weight, bias), (weight, bias), jnp.ones((), features.dtype)), rate, strength


@programs.jit
def _advance(carry: Any, features: Array, labels: Array, rate: Array, strength: Array, steps: Array) -> Any:
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


def norms(features: Array, labels: Array, num_classes: int, show: Show | None = None) -> tuple[Array, Array]:
    """(||W[:, d]|| [D], norms of the loss's gradient [D]) at the minimum of mean cross-entropy + lambda sum_d ||W[:, d]||.

    By accelerated proximal gradient. Where a norm is zero, the gradient says how near the feature is to having a weight.
    """
    carry, rate, strength = _begin(features, labels, num_classes)
    taken = 0

    def advance(until: int) -> bool:
        nonlocal carry, taken
        carry, taken = _advance(carry, features, labels, rate, strength, jnp.int32(until - taken)), until
        jax.block_until_ready(carry)
        return False

    in_parts(advance, STEPS, show, "group lasso")
    (weight, bias), _, _ = carry
    return jnp.linalg.norm(weight, axis=0), jnp.linalg.norm(_gradient(features, labels, weight, bias)[0], axis=0)
