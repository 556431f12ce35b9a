"""The visual towers of CLIP (Radford et al., 2021): a ResNet-50 and ViT-B/32.

Blocks: those of a ResNet ("stem", "layerS.B", "attention_pool") or of a vision transformer ("embed", "blocks.I", "norm",
"project"). The penultimate feature is the image embedding, not normalised; the classifier is new: CLIP has none.
"""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp

from ncjax.core.types import Array, Model
from ncjax.core.values import CHANNELS, DEPTH, DTYPE, PIXELS
from ncjax.models.layers import Conv, conv_norm, first_token, halve, identity, mean_pool
from ncjax.models.sequential import Block, assemble
from ncjax.models.vit import Embed, Encoder, FinalNorm, VitStyle


class Stem(nn.Module):
    """Three 3x3 convolutions, the first with stride 2, and a 2x2/2 mean."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        for i, (w, stride) in enumerate(((self.width // 2, 2), (self.width // 2, 1), (self.width, 1)), 1):
            conv = Conv(w, 3, stride, dtype=self.dtype, name=f"conv{i}")
            x = conv_norm(x, conv, f"bn{i}", train, mask, activation="relu")
        return halve(x)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with four times the width; strides are 2x2 means before a 1x1."""

    width: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        def step(y: Array, w: int, kernel: int, conv: str, bn: str, activation: str | None = None) -> Array:
            return conv_norm(y, Conv(w, kernel, dtype=self.dtype, name=conv), bn, train, mask, activation=activation)

        y = step(x, self.width, 1, "conv1", "bn1", "relu")
        y = step(y, self.width, 3, "conv2", "bn2", "relu")
        y = step(halve(y) if self.stride > 1 else y, 4 * self.width, 1, "conv3", "bn3")
        if self.stride > 1 or x.shape[-1] != y.shape[-1]:
            x = step(halve(x) if self.stride > 1 else x, y.shape[-1], 1, "downsample_conv", "downsample_bn")
        return nn.relu(x + y)


class AttentionPool(nn.Module):
    """The spatial mean attends to itself and to every position."""

    heads: int
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = jnp.concatenate([x.mean(1, keepdims=True), x], 1)
        x = x + self.param("positions", nn.initializers.normal(0.02), x.shape[1:]).astype(x.dtype)
        attend = nn.MultiHeadDotProductAttention(
            self.heads, qkv_features=x.shape[-1], out_features=self.width, dtype=self.dtype, name="attention"
        )
        return attend(x[:, :1], x)[:, 0]


class Project(nn.Module):
    """A linear map of the class token, without bias."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        return nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="dense")(x[:, 0])


def clip_resnet50(
    num_classes: int,
    projection_layers: int = 0,
    width: Annotated[int, CHANNELS] = 64,
    dtype: Annotated[str, DTYPE] = "float32",
) -> Model:
    """CLIP's ResNet-50, embeddings of width 1024. Images of one size: positions are learned (224 pixels give 7x7).

    Args:
      num_classes: classes of the linear classifier.
      projection_layers: layers between the penultimate feature and the classifier.
      width: channels of the first stage (64 is the published network).
      dtype: compute type; parameters, statistics and pooled features stay float32.
    """
    compute = jnp.dtype(dtype)
    blocks = [Block("stem", Stem(width, compute), mean_pool)]
    for s, depth in enumerate((3, 4, 6, 3)):
        blocks += [
            Block(f"layer{s + 1}.{b}", Bottleneck(width << s, 2 if s and not b else 1, compute), mean_pool)
            for b in range(depth)
        ]
    blocks.append(Block("attention_pool", AttentionPool(width // 2, 16 * width, compute), identity))
    return assemble(blocks, num_classes=num_classes, projection_layers=projection_layers)


def clip_vit_b(
    num_classes: int,
    projection_layers: int = 0,
    patch: Annotated[int, PIXELS] = 32,
    depth: Annotated[int, DEPTH] = 12,
    dtype: Annotated[str, DTYPE] = "float32",
) -> Model:
    """CLIP's ViT-B, embeddings of width 512.

    Args:
      num_classes: classes of the linear classifier.
      projection_layers: layers between the penultimate feature and the classifier.
      patch: patch side in pixels; image sides must be multiples of it.
      depth: encoder blocks (12 is the published network).
      dtype: compute type; parameters and pooled features stay float32.
    """
    compute, style = jnp.dtype(dtype), VitStyle(patch_bias=False, pre_norm=True, quick_gelu=True, epsilon=1e-5)
    blocks = [Block("embed", Embed(768, patch, style, compute), first_token)]
    blocks += [Block(f"blocks.{i}", Encoder(12, 0.0, style, compute), first_token) for i in range(depth)]
    blocks += [Block("norm", FinalNorm(style, compute), first_token), Block("project", Project(512, compute), identity)]
    return assemble(blocks, num_classes=num_classes, projection_layers=projection_layers)
