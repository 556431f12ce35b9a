"""What losses are made of. `N` examples (rows with mask 0 are filler), `K` classes, `D` features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ncjax.core.types import Array


def masked_mean(per_example: Float[Array, " N"], mask: Float[Array, " N"]) -> Float[Array, ""]:
    """The mean over real examples; 0 where there is none."""
    return jnp.sum(per_example * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def log_probabilities(logits: Float[Array, "N K"], labels: Array) -> tuple[Array, Array]:
    """(log softmax [N, K], labels as one-hot [N, K])."""
    log_p = jax.nn.log_softmax(logits)
    return log_p, jax.nn.one_hot(labels, log_p.shape[-1], dtype=log_p.dtype)


def against_labels(logits: Float[Array, "N K"], labels: Array, mask: Array) -> Float[Array, ""]:
    """Softmax cross-entropy."""
    log_p, target = log_probabilities(logits, labels)
    return masked_mean(-jnp.sum(target * log_p, axis=-1), mask)


def classifier_alone(features: dict[str, Array], labels: Array, mask: Array) -> Float[Array, ""]:
    """Cross-entropy by which the classifier learns on detached features, where another loss moves the backbone."""
    return against_labels(features["detached_logits"], labels, mask)


def unit(x: Float[Array, "N D"]) -> Float[Array, "N D"]:
    """Rows of length one."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


def others(mask: Float[Array, " N"], dtype: jnp.dtype) -> Float[Array, "N N"]:
    """1 where row j is a real example other than i."""
    return mask[None, :].astype(dtype) * (1.0 - jnp.eye(len(mask), dtype=dtype))


def contrast(z: Float[Array, "N D"], mask: Float[Array, " N"], temperature: float) -> Float[Array, "N N"]:
    """log( exp(z_i.z_j / t) / sum_{a != i} exp(z_i.z_a / t) ) over real examples; -inf for the others."""
    other = others(mask, z.dtype)
    similarity = jnp.where(other > 0, jnp.matmul(z, z.T, precision="highest") / temperature, -jnp.inf)
    return similarity - jax.nn.logsumexp(similarity, axis=-1, keepdims=True, where=other > 0)


def feature_entropy(features: Float[Array, "N D"], mask: Float[Array, " N"]) -> Float[Array, ""]:
    """mean_i log min_{j != i} ||z_i - z_j||, z of unit length: entropy up to constants (Kozachenko & Leonenko, 1987)."""
    z = unit(features)
    other = others(mask, z.dtype)
    cosine = jnp.matmul(z, z.T, precision="highest")
    nearest = jnp.max(jnp.where(other > 0, cosine, -jnp.inf), axis=1)  # -inf where there is no other
    square = jnp.where(jnp.isfinite(nearest), jnp.maximum(2 - 2 * nearest, 1e-6), 1.0)
    return masked_mean(0.5 * jnp.log(square), mask)
