"""The words every other file uses: the batch, the model pair, the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any
Array = Any


class Batch(NamedTuple):
    """A padded batch. Rows whose mask is 0 are filler and count for nothing."""

    image: Array  # [B, H, W, C] float32, normalised
    label: Array  # [B] int32
    mask: Array  # [B] float32, 1 for a real example
    black: Array | None = None  # [B, 1, 1, C], what a pixel of 0 is after normalisation; None for activations
    white: Array | None = None  # [B, 1, 1, C], what a pixel of 255 is


class Model(NamedTuple):
    """A model: a pair of pure functions over `variables = {"params": ..., "batch_stats": ...}`, each keyed by block.

    `init(key, image_shape) -> variables`
    `apply(variables, images, live=frozenset(), start=None, stop=None, key=None, mask=None) -> (features, variables)`

    `features` holds one pooled float32 array `[N, D]` per block that ran, and, when the last block ran, `penultimate`,
    `logits` and `detached_logits` (the same numbers, no gradient below the classifier). `live` names the blocks in
    training mode; every other block neither drops out nor moves its BatchNorm statistics. `stop` names the first block
    that does *not* run: the activation that would enter it is `features["carry"]`, and is what a later call with
    `start=` that block takes in place of images. `mask` [N] keeps filler rows out of batch statistics.
    """

    init: Callable[..., PyTree]
    apply: Callable[..., tuple[dict[str, Array], PyTree]]
    blocks: tuple[str, ...]  # execution order, from the input to "head"
    penultimate: str  # the last backbone block: its feature is also features["penultimate"]
    readout: str  # the feature the classifier reads
    num_classes: int
    linear: bool = True  # whether the classifier is a linear map of the readout

    @property
    def backbone(self) -> tuple[str, ...]:
        """Blocks that a transfer keeps: all but the projection and the classifier."""
        return self.blocks[: self.blocks.index(self.penultimate) + 1]

    @property
    def layers(self) -> tuple[str, ...]:
        """Features whose collapse is measured: every backbone block, then what the classifier reads if that is none."""
        return self.backbone + ((self.readout,) if self.readout not in self.backbone else ())


class Network(NamedTuple):
    """A trained (or tunable) network as one value: what it is, its functions, its arrays."""

    card: Any  # `ncjax.networks.card.Card`: names, image shape, classes, preprocessing
    model: Model
    variables: PyTree

    def fed(self, dataset: Any) -> Network:
        """The network as it is fed a data set's images: in their size, crop and normalisation."""
        return self._replace(card=self.card.fed(dataset))

    def widths(self) -> dict[str, int]:
        """Feature width D of every layer."""
        return widths(self.model, self.variables, self.card.image_shape)


def widths(model: Model, variables: PyTree, image_shape: Sequence[int]) -> dict[str, int]:
    """Feature width D of every layer of a model."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    features, _ = jax.eval_shape(model.apply, variables, image)
    return {name: features[name].shape[-1] for name in model.layers}


class Loss(NamedTuple):
    """A loss of features alone; `lift` makes an objective of it."""

    value: Callable[[dict[str, Array], Array, Array], Array]  # (features, labels [N], mask [N]) -> scalar
    views: int = 1  # augmented copies of each image that it wants; they follow one another along the batch axis
    evaluate: Callable[[dict[str, Array], Array, Array], Array] | None = None  # in evaluation, if another; one view


class Objective(NamedTuple):
    """What a training step minimises. It sees the network, so that it may run it as it likes.

    `value(apply, variables, batch, key) -> (scalar, features)`. `apply(variables, images, train=True)` returns the features
    of `Model.apply` and, as `features["batch_stats"]`, the BatchNorm statistics as they stand after it (moved only where
    `train`). The features that come back are those of the step: their logits [N, K], a row for each of the batch, count as
    its accuracy, their statistics are kept.
    """

    value: Callable[..., tuple[Array, dict[str, Any]]]
    evaluate: Callable[[dict[str, Array], Array, Array], Array]  # the loss reported in evaluation, of clean features
    views: int = 1


def lift(loss: Loss | Objective) -> Objective:
    """A loss as an objective; an objective as it is."""
    if isinstance(loss, Objective):
        return loss

    def value(
        apply: Callable[..., dict[str, Any]], variables: PyTree, batch: Batch, key: Array
    ) -> tuple[Array, dict[str, Any]]:
        features = apply(variables, batch.image)
        return loss.value(features, batch.label, batch.mask), features

    return Objective(value, loss.evaluate or loss.value, loss.views)
