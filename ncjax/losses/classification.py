"""Losses of a classifier's scores. `K` classes, `z` logits, `y` labels, `p` probabilities."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.types import Array, Loss
from ncjax.core.values import NOT_NEGATIVE, POSITIVE, SHARE
from ncjax.losses.parts import against_labels, feature_entropy, log_probabilities, masked_mean


def cross_entropy() -> Loss:
    """Softmax cross-entropy, -log p_y."""
    return Loss(_cross_entropy)


def _cross_entropy(features: dict[str, Array], labels: Array, mask: Array) -> Array:
    """One function for all, so that programs that evaluate it are shared."""
    return against_labels(features["logits"], labels, mask)


def label_smoothing(smoothing: Annotated[float, SHARE] = 0.05) -> Loss:
    """Cross-entropy against (1 - s) one_hot(y) + s / K (Szegedy et al., 2016)."""

    def value(features, labels, mask):
        log_p, target = log_probabilities(features["logits"], labels)
        target = (1.0 - smoothing) * target + smoothing / log_p.shape[-1]
        return masked_mean(-jnp.sum(target * log_p, axis=-1), mask)

    return Loss(value)


def focal(gamma: Annotated[float, NOT_NEGATIVE] = 2.0) -> Loss:
    """-(1 - p_y)^gamma log p_y (Lin et al., 2017). gamma = 0 is cross-entropy."""

    def value(features, labels, mask):
        log_p, target = log_probabilities(features["logits"], labels)
        log_py = jnp.sum(target * log_p, axis=-1)
        # 1 - p_y through expm1: exact, with a finite gradient, for confident examples.
        miss = jnp.maximum(-jnp.expm1(log_py), jnp.finfo(log_py.dtype).tiny)
        return masked_mean(-(miss**gamma) * log_py, mask)

    return Loss(value)


def balanced_softmax(counts: Annotated[list[float], POSITIVE] = [1.0]) -> Loss:
    """Cross-entropy of z + log n, n the training images of each class (Ren et al., 2020), for unequal classes.

    In evaluation z alone counts, -log p_y. As `losses.balanced_softmax(counts=[500,500,20])`.

    Args:
      counts: images of each class, or their shares; one number for all is cross-entropy.

    Raises:
      UserError: as many counts as there are classes, or one, are needed.
    """
    log_counts = np.log(np.asarray(counts, np.float64))

    def value(features, labels, mask):
        logits = features["logits"]
        if len(log_counts) not in (1, logits.shape[-1]):
            raise UserError(f"losses.balanced_softmax: {len(log_counts)} counts for {logits.shape[-1]} classes")
        prior = jnp.broadcast_to(jnp.asarray(log_counts, logits.dtype), logits.shape)
        return against_labels(logits + prior, labels, mask)

    return Loss(value, evaluate=_cross_entropy)


def mse(scale: Annotated[float, POSITIVE] = 15.0) -> Loss:
    """Mean over classes of (z - scale * one_hot(y))^2; scale 15 is the recipe of the neural-collapse literature."""

    def value(features, labels, mask):
        logits = features["logits"]
        target = scale * jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        return masked_mean(jnp.mean(jnp.square(logits - target), axis=-1), mask)

    return Loss(value)


def entropy_regularised(weight: Annotated[float, NOT_NEGATIVE] = 0.1) -> Loss:
    """Cross-entropy less weight * H, H an estimate of the entropy of the penultimate features of unit length.

    Variability within classes is kept on purpose, as in Harun et al. (2025); the estimator, `feature_entropy`, is ours to
    choose, since theirs could not be read.
    """

    def value(features, labels, mask):
        return _cross_entropy(features, labels, mask) - weight * feature_entropy(features["penultimate"], mask)

    return Loss(value, evaluate=_cross_entropy)
