"""SqueezeNet 1.1 (Iandola et al., 2016).

Blocks: "stem", then "fire2" to "fire9", a max-pool before the first, the third and the fifth. The published classifier is a
1x1 convolution with a ReLU *before* the spatial mean; a new one, as everywhere, is linear in the mean of the last map.
"""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp

from ncjax.core.types import Array, Model
from ncjax.core.values import DTYPE
from ncjax.models.layers import Conv, he_uniform, max_pool, mean_pool
from ncjax.models.sequential import Block, assemble


class Stem(nn.Module):
    """3x3/2 convolution without padding."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        return Conv(64, 3, 2, 0, bias=True, dtype=self.dtype, kernel_init=he_uniform, name="conv")(x, "relu")


class Fire(nn.Module):
    """1x1 to few channels, then 1x1 and 3x3 side by side, each to half of the width."""

    width: int
    pooled: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        def conv(y: Array, width: int, kernel: int, name: str) -> Array:
            return Conv(width, kernel, bias=True, dtype=self.dtype, kernel_init=he_uniform, name=name)(y, "relu")

        x = max_pool(x, ceil=True) if self.pooled else x
        x = conv(x, self.width // 8, 1, "squeeze1x1")
        return jnp.concatenate([conv(x, self.width // 2, 1, "expand1x1"), conv(x, self.width // 2, 3, "expand3x3")], -1)


class MapClassifier(nn.Module):
    """Scores at every position, ReLU, spatial mean; a pooled feature counts as a map of one position."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array, train: bool = False, mask: Array | None = None) -> Array:
        scores = nn.relu(
            nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name="linear")(x.astype(jnp.float32))
        )
        return mean_pool(scores) if scores.ndim == 4 else scores


def squeezenet11(num_classes: int, projection_layers: int = 0, dtype: Annotated[str, DTYPE] = "float32") -> Model:
    """SqueezeNet 1.1, features of width 512.

    Args:
      num_classes: classes of the classifier.
      projection_layers: layers between the penultimate feature and a linear classifier.
      dtype: compute type; parameters and pooled features stay float32.
    """
    compute = jnp.dtype(dtype)
    widths = (128, 128, 256, 256, 384, 384, 512, 512)
    blocks = [Block("stem", Stem(compute), mean_pool)]
    blocks += [Block(f"fire{i}", Fire(w, i in (2, 4, 6), compute), mean_pool) for i, w in enumerate(widths, 2)]
    return assemble(
        blocks,
        num_classes=num_classes,
        projection_layers=projection_layers,
        classifier=None if projection_layers else MapClassifier(num_classes),
    )
