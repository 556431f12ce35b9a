"""Contrastive losses over two views of each image; the classifier learns beside them, on detached features."""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp

from ncjax.core.types import Loss
from ncjax.core.values import POSITIVE
from ncjax.losses.parts import classifier_alone, contrast, masked_mean, others, unit


def sup_con(temperature: Annotated[float, POSITIVE] = 0.1) -> Loss:
    """Supervised contrastive loss over two views (Khosla et al., 2020, eq. 2, L_out), on the classifier's input.

    mean_i -1/n_i sum_{p in P(i)} log( exp(z_i.z_p / t) / sum_{a != i} exp(z_i.z_a / t) ),  z of unit length.
    P(i) are the n_i others of its class; one with none is left out. The classifier learns by cross-entropy on detached
    features, so that accuracy means something while the backbone sees the contrastive loss alone.
    """

    def value(features, labels, mask):
        z = unit(features["embedding"])  # [N, D]
        log_p = contrast(z, mask, temperature)
        positive = others(mask, z.dtype) * (labels[:, None] == labels[None, :]).astype(z.dtype)
        count = jnp.sum(positive, axis=-1)
        per_example = -jnp.sum(jnp.where(positive > 0, log_p, 0.0), axis=-1) / jnp.maximum(count, 1.0)
        contrastive = masked_mean(per_example, mask * (count > 0).astype(z.dtype))
        return contrastive + classifier_alone(features, labels, mask)

    return Loss(value, views=2)


def nt_xent(temperature: Annotated[float, POSITIVE] = 0.5) -> Loss:
    """Contrastive loss of SimCLR over two views of each image, labels unused (Chen et al., 2020, eq. 1), on the readout.

    mean_i -log( exp(z_i.z_j(i) / t) / sum_{a != i} exp(z_i.z_a / t) ),  z of unit length, j(i) the other view of i's image:
    a batch of 2N rows holds the first views, then the second ones in the same order. The classifier learns by
    cross-entropy on detached features; that is also the loss told in evaluation, where there is one view.
    """

    def value(features, labels, mask):
        z = unit(features["embedding"])  # [2N, D]
        rows = jnp.arange(len(z))
        partner = (rows + len(z) // 2) % len(z)
        log_p = contrast(z, mask, temperature)
        contrastive = masked_mean(-jnp.where(mask > 0, log_p[rows, partner], 0.0), mask)
        return contrastive + classifier_alone(features, labels, mask)

    return Loss(value, views=2, evaluate=classifier_alone)
