"""The deep unconstrained-features model: its loss, that of deep neural collapse, and a solution of lower rank."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize_scalar

from ncjax.studies.theory.linear import class_means, within_over_between

CUT = 1e-2  # of the largest singular value: below, it counts for nothing


def layers_of(params: Sequence[Any]) -> list[Any]:
    """Features before each ReLU: W_1 H_1, W_2 s(.), ..., the output last."""
    *weights, h = params
    out = [weights[0] @ h]
    for w in weights[1:]:
        out.append(w @ jnp.maximum(out[-1], 0))
    return out


def objective(params: Sequence[Any], decay: float) -> Any:
    """The model's loss; parameters are (W_1, ..., W_L, H_1)."""
    out = layers_of(params)[-1]
    return jnp.sum((out - jnp.eye(len(out))) ** 2) / (2 * len(out)) + decay / 2 * sum(jnp.sum(p**2) for p in params)


def collapsed_loss(k: int, depth: int, decay: float) -> float:
    """Of deep neural collapse: K equal singular values s, min (s - 1)^2 / 2 + l K (L + 1)/2 s^{2/(L+1)}."""

    def value(s: float) -> float:
        return 0.5 * (s - 1) ** 2 + decay * k * (depth + 1) / 2 * s ** (2 / (depth + 1))

    return float(min(0.5, minimize_scalar(value, bounds=(0.05, 1.2), method="bounded", options={"xatol": 1e-12}).fun))


def incidence(r: int) -> np.ndarray:
    """[r, r(r-1)/2]: which two vertices an edge of the complete graph joins."""
    edges = list(itertools.combinations(range(r), 2))
    return np.array([[float(v in e) for e in edges] for v in range(r)])


def graph_start(r: int, depth: int, width: int) -> list[np.ndarray]:
    """Parameters whose layers are B, B, ... and at last B'B - 11', of rank r before the ReLU."""
    b = incidence(r)
    k = b.shape[1]

    def padded(x: np.ndarray, rows: int, columns: int) -> np.ndarray:
        out = np.zeros((rows, columns))
        out[: x.shape[0], : x.shape[1]] = x
        return out

    last = b.T - 0.5  # of B: B'B - 11', since 1'B = 2
    middle = [padded(np.eye(r), width, width) for _ in range(depth - 3)]
    first = padded(np.eye(r), width, width)
    return [first, *middle, padded(last, width, width), padded(np.eye(k), k, width), padded(b, width, k)]


def collapse(layers: Sequence[np.ndarray], labels: np.ndarray) -> dict[str, list[float]]:
    """By layer: DNC1 tr S_W / tr S_B before the ReLU, and condition and rank of its class means.

    Args:
      layers: features before each ReLU, [D, N].
      labels: [N].

    Returns:
      "dnc1"; "condition": largest over smallest of the min(K, D) singular values, of means after the ReLU; "rank": those
      above a hundredth of the largest, before it.
    """
    found: dict[str, list[float]] = {"dnc1": [], "condition": [], "rank": []}
    for h in layers:
        s, t = (np.linalg.svd(class_means(x, labels), compute_uv=False) for x in (h, np.maximum(h, 0)))
        found["dnc1"].append(within_over_between(h, labels))
        found["condition"].append(float(t[0] / max(t[-1], 1e-30)))
        found["rank"].append(int((s > CUT * s[0]).sum()))
    return found
