"""Deep linear networks: their product, their spectra, and how separation runs over layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

EQUAL = 1e-6  # of a singular value: so near they are one


def product(layers: Sequence[Any]) -> Any:
    """W_L ... W_1."""
    out = layers[0]
    for layer in layers[1:]:
        out = layer @ out
    return out


def orthogonal(key: Any, d: int) -> Any:
    """A random orthogonal matrix [d, d]."""
    q, r = jnp.linalg.qr(jax.random.normal(key, (d, d)))
    return q * jnp.sign(jnp.diagonal(r))


def equal_values(layer: np.ndarray) -> int:
    """How many singular values are one and the same, at most."""
    s = np.linalg.svd(layer, compute_uv=False)
    return int(max((np.abs(s - x) <= EQUAL * s[0]).sum() for x in s))


def compressed(layers: Sequence[Any], target: Any, rank: int) -> tuple[list[Any], Any, Any]:
    """(2r x 2r layers, U, V) with U product V' the full network's map: V spans what the first gradient moves.

    The invariant inputs are those that both G = dloss/dW_1 and G' W_1 send to zero; V is the rest, the top 2r right
    singular vectors of [G; G' W_1], and U = W_L ... W_1 V / e^L.
    """
    w1 = layers[0]
    gradient = product(layers[1:]).T @ (product(layers) - target)
    _, _, right = jnp.linalg.svd(jnp.concatenate([gradient, gradient.T @ w1]))
    v = right[: 2 * rank].T
    scale = jnp.linalg.norm(w1) / jnp.sqrt(len(w1))
    return [scale * jnp.eye(2 * rank) for _ in layers], product(layers) @ v / scale ** len(layers), v


def class_means(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[D, K] of features [D, N]."""
    return np.stack([x[:, labels == c].mean(1) for c in range(labels.max() + 1)], axis=1)


def within_over_between(x: np.ndarray, labels: np.ndarray) -> float:
    """tr S_W / tr S_B of features [D, N]."""
    means = class_means(x, labels)
    within = np.mean(np.sum((x - means[:, labels]) ** 2, axis=0))
    between = np.mean(np.sum((means - means.mean(1, keepdims=True)) ** 2, axis=0))
    return float(within / max(between, 1e-30))


def collapse_by_layer(layers: Sequence[Any], x: Any, labels: np.ndarray, relu: bool) -> np.ndarray:
    """C_l = tr S_W / tr S_B of the features after each layer. [L]."""
    out = []
    for layer in layers[:-1]:
        x = layer @ x
        x = jnp.maximum(x, 0) if relu else x
        out.append(within_over_between(np.asarray(x), labels))
    return np.asarray(out)


def straightness(values: np.ndarray) -> float:
    """R^2 of a line through the logarithms."""
    y, x = np.log(values), np.arange(len(values))
    return float(np.corrcoef(x, y)[0, 1] ** 2)
