"""Losses whose class vectors are fixed beforehand."""

from __future__ import annotations

import functools
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ncjax.core.errors import UserError
from ncjax.core.types import Array, Loss
from ncjax.core.values import NOT_NEGATIVE, PART, POSITIVE
from ncjax.losses.parts import against_labels, classifier_alone, feature_entropy, masked_mean, unit

SPARSE_STEPS = 2000  # of Adam, to part the vectors of `sparse_etf`


def simplex_etf(num_classes: int, dim: int, seed: int = 0) -> Float[np.ndarray, "K D"]:
    """Unit vectors at the largest equal angles, sqrt(K / (K - 1)) U P^T.

    U [K, K - 1] has orthonormal columns orthogonal to 1, so that U U^T = I - 11^T / K; P [D, K - 1] random
    orthonormal ones.

    Raises:
      UserError: fewer than K - 1 features.
    """
    if dim < num_classes - 1:
        raise UserError(
            f"a simplex of {num_classes} classes needs {num_classes - 1} features, and the classifier reads {dim}: take a "
            "wider model"
        )
    centred = np.eye(num_classes)[:, 1:] - 1 / num_classes
    basis, _ = np.linalg.qr(centred)
    columns, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, num_classes - 1)))
    return np.sqrt(num_classes / (num_classes - 1)) * basis @ columns.T


@functools.lru_cache(maxsize=16)
def sparse_etf(num_classes: int, dim: int, sparsity: float = 0.6, seed: int = 0) -> Float[np.ndarray, "K D"]:
    """Vectors of length one with zeros at random places and angles as large as those allow (Xiao et al., 2024, SSE-C).

    A simplex ETF loses a share `sparsity` of its entries; the others are moved by 2000 steps of Adam to minimise

        sum_k (||m_k|| - 1)^2 - mean_k arccos max_{j != k} cos(m_j, m_k),

    and rows are then divided by their lengths. The authors take 10 000 steps. In NumPy and float64, so that every device
    and every resumed run has the same vectors, to rounding. Not to be written into.

    Raises:
      UserError: fewer than K - 1 features, or so sparse that a class keeps no entry, or two point the same way.
    """
    start = simplex_etf(num_classes, dim, seed)
    zeros = np.random.default_rng([seed, 1]).permutation(start.size)[: round(sparsity * start.size)]
    kept = np.ones(start.size)
    kept[zeros] = 0
    kept = kept.reshape(start.shape)
    said = f"sparsity={sparsity}: of {dim} entries a class, "
    if not kept.any(axis=1).all():
        raise UserError(said + "one class keeps none; take less, or a wider model")
    m, first, second = start * kept, np.zeros_like(start), np.zeros_like(start)
    for step in range(SPARSE_STEPS):
        gradient = _sparse_gradient(m) * kept
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        corrected = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        rate = 0.005 * (1 + np.cos(np.pi * step / SPARSE_STEPS))
        m = m - rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
    m /= np.linalg.norm(m, axis=1, keepdims=True)
    if np.max(m @ m.T - 2 * np.eye(num_classes)) > 1 - 1e-3:
        raise UserError(said + "two classes keep too few to point apart; take less, or a wider model")
    m.setflags(write=False)
    return m


def _sparse_gradient(m: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "K D"]:
    """Of sum_k (||m_k|| - 1)^2 - mean_k arccos max_{j != k} cos(m_j, m_k).

    -arccos(c) has slope 1 / sqrt(1 - c^2), and c = cos(m_k, m_j) moves with m_k by (u_j - c u_k) / ||m_k||.
    """
    k, rows = len(m), np.arange(len(m))
    lengths = np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-12)
    u = m / lengths
    cosines = u @ u.T - 2 * np.eye(k)
    nearest = np.argmax(cosines, axis=1)
    c = np.clip(cosines[rows, nearest], -1 + 1e-6, 1 - 1e-6)[:, None]
    slope = 1 / np.sqrt(1 - c**2) / k
    gradient = 2 * (lengths - 1) * u + slope * (u[nearest] - c * u) / lengths
    np.add.at(gradient, nearest, slope * (u - c * u[nearest]) / lengths[nearest])
    return gradient


def away_from_vertex(h: Float[Array, "N D"], vertex: Float[Array, "N D"]) -> Float[Array, " N"]:
    """1/2 (cos(h, m) - 1)^2 with each example's own vertex m, of unit length: dot regression, features of unit length."""
    return 0.5 * jnp.square(jnp.sum(unit(h) * vertex, axis=-1) - 1.0)


def dot_regression(scale: Annotated[float, POSITIVE] = 10.0) -> Loss:
    """scale * 1/2 (cos(h, m_y) - 1)^2, m_k the vertices of a fixed simplex ETF (Yang et al., 2023, with unit lengths).

    Only the own class's vertex pulls; nothing pushes from the others, so rare and absent classes are not pushed away.
    h is the readout. The network's own classifier learns beside it on detached features.

    Args:
      scale: weight of the term, 10 in the authors' code.
    """

    def value(features, labels, mask):
        h = features["embedding"]
        etf = jnp.asarray(simplex_etf(features["logits"].shape[-1], h.shape[-1]), h.dtype)
        return scale * masked_mean(away_from_vertex(h, etf[labels]), mask) + classifier_alone(features, labels, mask)

    return Loss(value)


def fixed_etf(
    scale: Annotated[float, POSITIVE] = 10.0,
    entropy: Annotated[float, NOT_NEGATIVE] = 0.0,
    sparsity: Annotated[float, PART] = 0.0,
) -> Loss:
    """Cross-entropy of scale * cos(h, m_k) with fixed class vectors m_k, a simplex ETF (Zhu et al., 2021).

    h is the readout. The network's own classifier learns on detached features, so that it can be read and measured as
    any other.

    Args:
      scale: inverse temperature.
      sparsity: share of the vectors' entries that are zero, see `sparse_etf`.
      entropy: weight of `entropy_regularised`'s term at the penultimate feature: with it, about what Harun et al. (2025)
        propose to keep variability in the backbone while the projection head collapses.
    """

    def value(features, labels, mask):
        h = unit(features["embedding"])
        shape = (features["logits"].shape[-1], h.shape[-1])
        etf = jnp.asarray(sparse_etf(*shape, sparsity) if sparsity else simplex_etf(*shape), h.dtype)
        cosine = jnp.matmul(h, etf.T, precision="highest")
        fixed = against_labels(scale * cosine, labels, mask)
        found = fixed + classifier_alone(features, labels, mask)
        return found - entropy * feature_entropy(features["penultimate"], mask) if entropy else found

    return Loss(value)
