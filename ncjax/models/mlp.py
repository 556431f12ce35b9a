"""Multilayer perceptrons on flattened images. Blocks: "layer0", "layer1", ...; a feature is the activation itself."""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp

from ncjax.core.types import Array, Model
from ncjax.core.values import CHANNELS, DEPTH, DTYPE, PART
from ncjax.models.layers import batch_norm, identity
from ncjax.models.sequential import Block, assemble


class Layer(nn.Module):
    """Dense, optional BatchNorm, ReLU, optional dropout."""

    width: int
    norm: bool
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        x = nn.Dense(self.width, dtype=self.dtype, name="dense")(x.reshape(x.shape[0], -1))
        x = nn.relu(batch_norm(x, train, mask, self.dtype, "norm") if self.norm else x)
        return nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout else x


def mlp(
    num_classes: int,
    projection_layers: int = 0,
    depth: Annotated[int, DEPTH] = 3,
    width: Annotated[int, CHANNELS] = 256,
    norm: bool = True,
    dropout: Annotated[float, PART] = 0.0,
    dtype: Annotated[str, DTYPE] = "float32",
) -> Model:
    """A perceptron with `depth` hidden layers of equal width.

    Args:
      num_classes: classes of the linear classifier.
      projection_layers: layers before the classifier.
      depth, width: hidden layers and their width.
      norm: BatchNorm before each ReLU.
      dropout: rate after each layer, in training mode only.
      dtype: compute type.
    """
    layers = [Block(f"layer{i}", Layer(width, norm, dropout, jnp.dtype(dtype)), identity) for i in range(depth)]
    return assemble(layers, num_classes=num_classes, projection_layers=projection_layers)
