"""Vision transformers (Dosovitskiy et al., 2021) with a class token.

Blocks: "embed", "blocks.0", "blocks.1", ..., "norm"; a block's feature is its class token.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypedDict, Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncjax.core.errors import UserError
from ncjax.core.types import Array, Model
from ncjax.core.values import DEPTH, DTYPE, PART, PIXELS
from ncjax.models.layers import Conv, first_token
from ncjax.models.sequential import Block, assemble

_normal = nn.initializers.normal(0.02)


class VitStyle(NamedTuple):
    """What tells apart transformers of the same depth and width."""

    patch_bias: bool = True
    pre_norm: bool = False  # LayerNorm before the first block
    quick_gelu: bool = False  # x sigmoid(1.702 x) in place of the exact GELU
    epsilon: float = 1e-6  # of LayerNorm


class Embed(nn.Module):
    """Patches, class token, learned positions."""

    width: int
    patch: int
    style: VitStyle
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise UserError(f"images of {x.shape[1]}x{x.shape[2]} pixels do not divide into patches of {self.patch}")
        x = Conv(
            self.width,
            self.patch,
            self.patch,
            "VALID",
            bias=self.style.patch_bias,
            dtype=self.dtype,
            kernel_init=nn.initializers.lecun_normal(),
            name="patches",
        )(x)
        x = x.reshape(x.shape[0], -1, self.width)
        token = self.param("class_token", _normal, (1, 1, self.width)).astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], axis=1)
        x = x + self.param("positions", _normal, (1, x.shape[1], self.width)).astype(x.dtype)
        return nn.LayerNorm(epsilon=self.style.epsilon, dtype=self.dtype, name="norm")(x) if self.style.pre_norm else x


def _fused(query: Array, key: Array, value: Array) -> Array:
    """cuDNN's attention [N, T, heads, d], which keeps no [T, T] scores. It takes lengths that are multiples of 8."""
    count, length = query.shape[:2]
    query, key, value = (jnp.pad(x, ((0, 0), (0, -length % 8), (0, 0), (0, 0))) for x in (query, key, value))
    lengths = jnp.full(count, length, jnp.int32)
    return jax.nn.dot_product_attention(
        query, key, value, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation="cudnn"
    )[:, :length]


def _attention(dtype: Any) -> Callable[..., Array]:
    """softmax(q k^T / sqrt(d)) v: fused in bfloat16 on NVIDIA GPUs, else Linen's."""
    fused = jnp.dtype(dtype) == jnp.bfloat16 and "NVIDIA" in jax.devices()[0].device_kind
    return _fused if fused else nn.dot_product_attention


class Encoder(nn.Module):
    """Pre-norm self-attention and a four times wider GELU perceptron."""

    heads: int
    dropout: float
    style: VitStyle
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        norm = functools.partial(nn.LayerNorm, epsilon=self.style.epsilon, dtype=self.dtype)
        drop = nn.Dropout(self.dropout, deterministic=not train) if self.dropout else lambda y: y
        y = norm(name="norm1")(x)
        attention = nn.MultiHeadDotProductAttention(
            self.heads, dtype=self.dtype, kernel_init=_normal, attention_fn=_attention(self.dtype), name="attention"
        )
        x = x + drop(attention(y, y))
        y = nn.Dense(4 * x.shape[-1], dtype=self.dtype, kernel_init=_normal, name="mlp1")(norm(name="norm2")(x))
        y = y * nn.sigmoid(1.702 * y) if self.style.quick_gelu else nn.gelu(y, approximate=False)
        return x + drop(nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=_normal, name="mlp2")(y))


class FinalNorm(nn.Module):
    """LayerNorm of the tokens; the classifier reads its class token."""

    style: VitStyle
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        return nn.LayerNorm(epsilon=self.style.epsilon, dtype=self.dtype, name="norm")(x)


class Options(TypedDict, total=False):
    """What may be set of every ViT.

    Args:
      patch: patch side in pixels, 16 by default; image sides must be multiples of it.
      depth: encoder blocks (12 is the published network).
      dropout: rate on both residual branches, in training mode only.
      dtype: compute type; parameters and pooled features stay float32.
    """

    patch: Annotated[int, PIXELS]
    depth: Annotated[int, DEPTH]
    dropout: Annotated[float, PART]
    dtype: Annotated[str, DTYPE]


def _build(width: int, heads: int, num_classes: int, projection_layers: int, options: Options) -> Model:
    compute, style = jnp.dtype(options.get("dtype", "float32")), VitStyle()
    encoder = Encoder(heads, options.get("dropout", 0.0), style, compute)
    blocks = [Block("embed", Embed(width, options.get("patch", 16), style, compute), first_token)]
    blocks += [Block(f"blocks.{i}", encoder, first_token) for i in range(options.get("depth", 12))]
    blocks.append(Block("norm", FinalNorm(style, compute), first_token))
    return assemble(blocks, num_classes=num_classes, projection_layers=projection_layers)


def vit_ti(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ViT-Ti: width 192, 3 heads; options as in `Options`."""
    return _build(192, 3, num_classes, projection_layers, options)


def vit_s(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ViT-S: width 384, 6 heads; options as in `Options`."""
    return _build(384, 6, num_classes, projection_layers, options)


def vit_b(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ViT-B: width 768, 12 heads; options as in `Options`."""
    return _build(768, 12, num_classes, projection_layers, options)
