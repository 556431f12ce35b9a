"""Losses whose class vectors are fixed beforehand."""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ncjax.core.errors import UserError
from ncjax.core.types import Loss
from ncjax.core.values import NOT_NEGATIVE, POSITIVE
from ncjax.losses.parts import against_labels, classifier_alone, feature_entropy, unit


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


def fixed_etf(scale: Annotated[float, POSITIVE] = 10.0, entropy: Annotated[float, NOT_NEGATIVE] = 0.0) -> Loss:
    """Cross-entropy of scale * cos(h, m_k) with fixed class vectors m_k, a simplex ETF (Zhu et al., 2021).

    h is the readout. The network's own classifier learns on detached features, so that it can be read and measured as
    any other.

    Args:
      scale: inverse temperature.
      entropy: weight of `entropy_regularised`'s term at the penultimate feature: with it, about what Harun et al. (2025)
        propose to keep variability in the backbone while the projection head collapses.
    """

    def value(features, labels, mask):
        h = unit(features["embedding"])
        etf = jnp.asarray(simplex_etf(features["logits"].shape[-1], h.shape[-1]), h.dtype)
        cosine = jnp.matmul(h, etf.T, precision="highest")
        fixed = against_labels(scale * cosine, labels, mask)
        found = fixed + classifier_alone(features, labels, mask)
        return found - entropy * feature_entropy(features["penultimate"], mask) if entropy else found

    return Loss(value)
