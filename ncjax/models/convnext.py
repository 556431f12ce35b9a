"""ConvNeXt (Liu et al., 2022).

Blocks: "stem", "stageS.B" for block B of stage S (a stage's first block halves the resolution), "norm", the normalised
spatial mean, which the classifier reads.
"""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp

from ncjax.core.types import Array, Model
from ncjax.core.values import DTYPE
from ncjax.models.layers import Conv, identity, mean_pool
from ncjax.models.sequential import Block, assemble

NORMAL = nn.initializers.normal(0.02)


def _norm(x: Array, dtype: Any, name: str) -> Array:
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, name=name)(x)


class Stem(nn.Module):
    """Patches of 4x4, LayerNorm."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        return _norm(
            Conv(self.width, 4, 4, 0, bias=True, dtype=self.dtype, kernel_init=NORMAL, name="conv")(x), self.dtype, "norm"
        )


class Layer(nn.Module):
    """Depthwise 7x7, LayerNorm, a four times wider GELU perceptron, a scale for each channel, and the sum.

    Where the width changes, LayerNorm and patches of 2x2 come first.
    """

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        if x.shape[-1] != self.width:
            x = _norm(x, self.dtype, "downsample_norm")
            x = Conv(self.width, 2, 2, 0, bias=True, dtype=self.dtype, kernel_init=NORMAL, name="downsample_conv")(x)
        y = Conv(self.width, 7, groups=self.width, bias=True, dtype=self.dtype, kernel_init=NORMAL, name="depthwise_conv")(
            x
        )
        y = nn.Dense(4 * self.width, dtype=self.dtype, kernel_init=NORMAL, name="mlp1")(_norm(y, self.dtype, "norm"))
        y = nn.Dense(self.width, dtype=self.dtype, kernel_init=NORMAL, name="mlp2")(nn.gelu(y, approximate=False))
        return x + y * self.param("gamma", nn.initializers.constant(1e-6), (self.width,)).astype(self.dtype)


class PooledNorm(nn.Module):
    """LayerNorm of the spatial mean."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        return _norm(mean_pool(x), self.dtype, "norm")


def convnext_tiny(num_classes: int, projection_layers: int = 0, dtype: Annotated[str, DTYPE] = "float32") -> Model:
    """ConvNeXt-T: 3 + 3 + 9 + 3 blocks, features of width 768.

    Args:
      num_classes: classes of the linear classifier.
      projection_layers: layers between the penultimate feature and the classifier.
      dtype: compute type; parameters and pooled features stay float32.
    """
    compute = jnp.dtype(dtype)
    blocks = [Block("stem", Stem(96, compute), mean_pool)]
    for s, depth in enumerate((3, 3, 9, 3), 1):
        blocks += [Block(f"stage{s}.{b}", Layer(48 << s, compute), mean_pool) for b in range(depth)]
    blocks.append(Block("norm", PooledNorm(compute), identity))
    return assemble(blocks, num_classes=num_classes, projection_layers=projection_layers)
