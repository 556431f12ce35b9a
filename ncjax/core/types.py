"""The words every other file uses: the batch, the model pair, the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

PyTree = Any
Array = Any


class Batch(NamedTuple):
    """A padded batch. Rows whose mask is 0 are filler and count for nothing."""

    image: Array  # [B, H, W, C] float32, normalised
    label: Array  # [B] int32
    mask: Array  # [B] float32, 1 for a real example


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


class Loss(NamedTuple):
    """`value(features, labels, mask) -> scalar`, and how many augmented views of each image it wants."""

    value: Callable[[dict[str, Array], Array, Array], Array]
    views: int = 1
