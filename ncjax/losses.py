"""Training losses. Each public function takes its settings and returns a `Loss` over named features.

`N` examples (rows with mask 0 are filler), `K` classes, `z` logits, `y` labels.
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ncjax.core.types import Array, Loss
from ncjax.core.values import NOT_NEGATIVE, POSITIVE, SHARE


def _masked_mean(per_example: Float[Array, " N"], mask: Float[Array, " N"]) -> Float[Array, ""]:
    return jnp.sum(per_example * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def _log_probabilities(features: dict[str, Array], labels: Array, key: str = "logits") -> tuple[Array, Array]:
    log_p = jax.nn.log_softmax(features[key])  # [N, K]
    return log_p, jax.nn.one_hot(labels, log_p.shape[-1], dtype=log_p.dtype)


def cross_entropy() -> Loss:
    """Softmax cross-entropy, -log p_y."""
    return label_smoothing(smoothing=0.0)


def label_smoothing(smoothing: Annotated[float, SHARE] = 0.05) -> Loss:
    """Cross-entropy against (1 - s) one_hot(y) + s / K (Szegedy et al., 2016)."""

    def value(features, labels, mask):
        log_p, target = _log_probabilities(features, labels)
        target = (1.0 - smoothing) * target + smoothing / log_p.shape[-1]
        return _masked_mean(-jnp.sum(target * log_p, axis=-1), mask)

    return Loss(value)


def focal(gamma: Annotated[float, NOT_NEGATIVE] = 2.0) -> Loss:
    """-(1 - p_y)^gamma log p_y (Lin et al., 2017). gamma = 0 is cross-entropy."""

    def value(features, labels, mask):
        log_p, target = _log_probabilities(features, labels)
        log_py = jnp.sum(target * log_p, axis=-1)
        # 1 - p_y through expm1: exact, with a finite gradient, for confident examples.
        miss = jnp.maximum(-jnp.expm1(log_py), jnp.finfo(log_py.dtype).tiny)
        return _masked_mean(-(miss**gamma) * log_py, mask)

    return Loss(value)


def mse(scale: Annotated[float, POSITIVE] = 15.0) -> Loss:
    """Mean over classes of (z - scale * one_hot(y))^2; scale 15 is the recipe of the neural-collapse literature."""

    def value(features, labels, mask):
        logits = features["logits"]
        target = scale * jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        return _masked_mean(jnp.mean(jnp.square(logits - target), axis=-1), mask)

    return Loss(value)


def sup_con(temperature: Annotated[float, POSITIVE] = 0.1) -> Loss:
    """Supervised contrastive loss over two views (Khosla et al., 2020, eq. 2, L_out), on the classifier's input.

    mean_i -1/n_i sum_{p in P(i)} log( exp(z_i.z_p / t) / sum_{a != i} exp(z_i.z_a / t) ),  z of unit length.
    P(i) are the n_i others of its class; one with none is left out. The classifier learns by cross-entropy on detached
    features, so that accuracy means something while the backbone sees the contrastive loss alone.
    """

    def value(features, labels, mask):
        z = features["embedding"]  # [N, D]
        z = z * jax.lax.rsqrt(jnp.sum(jnp.square(z), axis=-1, keepdims=True) + 1e-12)
        n = z.shape[0]
        other = mask[None, :] * (1.0 - jnp.eye(n, dtype=z.dtype))  # [N, N] may stand in the denominator
        similarity = jnp.matmul(z, z.T, precision="highest") / temperature
        similarity = jnp.where(other > 0, similarity, -jnp.inf)
        log_p = similarity - jax.nn.logsumexp(similarity, axis=-1, keepdims=True, where=other > 0)
        positive = other * (labels[:, None] == labels[None, :]).astype(z.dtype)
        count = jnp.sum(positive, axis=-1)
        per_example = -jnp.sum(jnp.where(positive > 0, log_p, 0.0), axis=-1) / jnp.maximum(count, 1.0)
        contrastive = _masked_mean(per_example, mask * (count > 0).astype(z.dtype))
        detached_log_p, target = _log_probabilities(features, labels, "detached_logits")
        return contrastive + _masked_mean(-jnp.sum(target * detached_log_p, axis=-1), mask)

    return Loss(value, views=2)
