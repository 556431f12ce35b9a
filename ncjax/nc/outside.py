"""Scores of how well features of examples from elsewhere (out of distribution) are told from a network's own."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from sklearn.metrics import roc_auc_score

from ncjax.core.types import Array
from ncjax.nc.geometry import double, geometry
from ncjax.nc.stats import ClassStats, matmul


@double
def neco(stats: ClassStats, features: Float[Array, "N D"]) -> Float[Array, " N"]:
    """||P (h - mu_G)|| / ||h - mu_G||, P onto the span of the training set's class means: near 1 inside the distribution.

    NECO (Ammar et al., 2024) projects on leading principal components, which are that span where features have collapsed.

    Args:
      stats: of the training features.
      features: to be scored.
    """
    g = geometry(stats)
    centred = features.astype(g.middle.dtype) - g.middle
    inside = matmul(centred, jnp.where(g.used[None, :], g.basis, 0))
    return jnp.linalg.norm(inside, axis=1) / jnp.maximum(jnp.linalg.norm(centred, axis=1), 1e-30)


@double
def nci(
    stats: ClassStats, features: Float[Array, "N D"], classifier: tuple[Array, Array] | None = None, *, alpha: float = 0.0
) -> Float[Array, " N"]:
    """cos(w_c, h - mu_G) + alpha ||h||_1, c the class that the classifier decides for, after Liu & Qin (2025).

    The cosine is of both, as class vectors differ in length before they have collapsed.

    Args:
      stats: of the training features.
      features: to be scored.
      classifier: (weight [K, D], bias [K]); without one, as at layers that none reads, the centred class means stand for
        its rows, which they are parallel to where features have collapsed, and c is the nearest of them.
      alpha: weight of the length.
    """
    g = geometry(stats)
    features = features.astype(g.middle.dtype)
    centred = features - g.middle
    if classifier is None:
        rows, keep = g.means, g.keep > 0
        logits = matmul(centred, rows.T) - 0.5 * jnp.sum(jnp.square(rows), axis=1)[None, :]
    else:
        rows, keep = jnp.asarray(classifier[0], g.middle.dtype), jnp.ones(len(classifier[0]), bool)
        logits = matmul(features, rows.T) + jnp.asarray(classifier[1], g.middle.dtype)[None, :]
    chosen = rows[jnp.argmax(jnp.where(keep[None, :], logits, -jnp.inf), axis=1)]
    norm = jnp.linalg.norm(chosen, axis=1) * jnp.linalg.norm(centred, axis=1)
    return jnp.sum(chosen * centred, axis=1) / jnp.maximum(norm, 1e-30) + alpha * jnp.sum(jnp.abs(features), axis=1)


def auroc(inside: Float[np.ndarray, " N"], outside: Float[np.ndarray, " M"]) -> float:
    """Chance that an example of the distribution scores above one from outside, ties counting half."""
    scores = np.concatenate([np.asarray(inside), np.asarray(outside)])
    return float(roc_auc_score(np.r_[np.ones(len(inside)), np.zeros(len(outside))], scores))
