"""DenseNet (Huang et al., 2017).

Blocks: "stem", "denseblockS.L" for layer L of dense block S (counted from 1, as in torchvision), "transitionS", "norm". A
layer's activation is everything concatenated so far; a pooled feature is the spatial mean.
"""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp

from ncjax.core.types import Array, Model
from ncjax.core.values import DTYPE
from ncjax.models.layers import Conv, batch_norm, conv_norm, halve, he_fan_in, max_pool, mean_pool
from ncjax.models.sequential import Block, assemble


class Stem(nn.Module):
    """7x7/2, BatchNorm, ReLU, 3x3/2 max-pool."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        conv = Conv(self.width, 7, 2, dtype=self.dtype, kernel_init=he_fan_in, name="conv")
        return max_pool(conv_norm(x, conv, "norm", train, mask, activation="relu"), padding=1)


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1x1 to four times the growth, BatchNorm, ReLU, 3x3 to the growth, concatenated to what came in."""

    growth: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        y = nn.relu(batch_norm(x, train, mask, self.dtype, "norm1"))
        conv = Conv(4 * self.growth, 1, dtype=self.dtype, kernel_init=he_fan_in, name="conv1")
        y = conv_norm(y, conv, "norm2", train, mask, activation="relu")
        y = Conv(self.growth, 3, dtype=self.dtype, kernel_init=he_fan_in, name="conv2")(y)
        return jnp.concatenate([x.astype(self.dtype), y], -1)


class Transition(nn.Module):
    """BatchNorm, ReLU, 1x1 to half of the width, 2x2/2 mean."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        x = nn.relu(batch_norm(x, train, mask, self.dtype, "norm"))
        return halve(Conv(x.shape[-1] // 2, 1, dtype=self.dtype, kernel_init=he_fan_in, name="conv")(x))


class FinalNorm(nn.Module):
    """BatchNorm, ReLU."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        return nn.relu(batch_norm(x, train, mask, self.dtype, "norm"))


def _build(layers: tuple[int, ...], growth: int, num_classes: int, projection_layers: int, dtype: str) -> Model:
    compute = jnp.dtype(dtype)
    blocks = [Block("stem", Stem(2 * growth, compute), mean_pool)]
    for s, count in enumerate(layers, 1):
        blocks += [Block(f"denseblock{s}.{i}", DenseLayer(growth, compute), mean_pool) for i in range(1, count + 1)]
        if s < len(layers):
            blocks.append(Block(f"transition{s}", Transition(compute), mean_pool))
    blocks.append(Block("norm", FinalNorm(compute), mean_pool))
    return assemble(blocks, num_classes=num_classes, projection_layers=projection_layers)


def densenet121(num_classes: int, projection_layers: int = 0, dtype: Annotated[str, DTYPE] = "float32") -> Model:
    """DenseNet-121: 6 + 12 + 24 + 16 layers of growth 32, computed in `dtype`."""
    return _build((6, 12, 24, 16), 32, num_classes, projection_layers, dtype)


def densenet161(num_classes: int, projection_layers: int = 0, dtype: Annotated[str, DTYPE] = "float32") -> Model:
    """DenseNet-161: 6 + 12 + 36 + 24 layers of growth 48, computed in `dtype`."""
    return _build((6, 12, 36, 24), 48, num_classes, projection_layers, dtype)


def densenet169(num_classes: int, projection_layers: int = 0, dtype: Annotated[str, DTYPE] = "float32") -> Model:
    """DenseNet-169: 6 + 12 + 32 + 32 layers of growth 32, computed in `dtype`."""
    return _build((6, 12, 32, 32), 32, num_classes, projection_layers, dtype)
