"""Residual networks (He et al., 2016): the ImageNet family (v1.5: stride on the 3x3; and the original), the CIFAR family.

Blocks: "stem", then "layerS.B" for block B of stage S, as in torchvision. A pooled feature is the spatial mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from ncjax.core.errors import UserError
from ncjax.core.types import Array, Model
from ncjax.models.layers import Conv, conv_norm, max_pool, mean_pool
from ncjax.models.sequential import Block, assemble


class Style(NamedTuple):
    """What tells apart networks of the same depths and widths."""

    bottleneck: bool = False
    padded: bool = False  # option A shortcuts
    early: bool = False  # a bottleneck strides in its first 1x1, not in its 3x3
    bias: bool = False  # convolutions have biases
    epsilon: float = 1e-5  # of BatchNorm


class Stem(nn.Module):
    """First convolution: 3x3 for small images, or 7x7/2 with a 3x3/2 max-pool for ImageNet sizes."""

    width: int
    imagenet: bool
    stride: int
    style: Style
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        kernel, stride = (7, 2) if self.imagenet else (3, self.stride)
        conv = Conv(self.width, kernel, stride, bias=self.style.bias, dtype=self.dtype, name="conv1")
        x = conv_norm(x, conv, "bn1", train, mask, self.style.epsilon, "relu")
        return max_pool(x, padding=1) if self.imagenet else x


class Residual(nn.Module):
    """A basic block (two 3x3) or a bottleneck (1x1, 3x3, 1x1 with four times the width).

    The shortcut of a block that changes shape is a 1x1 convolution, or, with `padded` (option A of the CIFAR family),
    subsampling with zero-padded channels and no parameters.
    """

    width: int
    stride: int
    style: Style
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        width, stride, style = self.width, self.stride, self.style

        def step(y: Array, w: int, kernel: int, s: int, name: str, bn: str, activation: str | None = None) -> Array:
            conv = Conv(w, kernel, s, bias=style.bias, dtype=self.dtype, name=name)
            return conv_norm(y, conv, bn, train, mask, style.epsilon, activation)

        first, second = (stride, 1) if style.early else (1, stride)
        plan = (
            [(width, 1, first), (width, 3, second), (4 * width, 1, 1)]
            if style.bottleneck
            else [(width, 3, stride), (width, 3, 1)]
        )
        y = x
        for i, (w, kernel, s) in enumerate(plan, 1):
            y = step(y, w, kernel, s, f"conv{i}", f"bn{i}", "relu" if i < len(plan) else None)
        if x.shape != y.shape and style.padded:
            extra = y.shape[-1] - x.shape[-1]
            x = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))
        elif x.shape != y.shape:
            x = step(x, y.shape[-1], 1, stride, "downsample_conv", "downsample_bn")
        return nn.relu(x + y)


_basic = Style()


def _build(
    depths: tuple[int, ...],
    *,
    num_classes: int,
    projection_layers: int,
    width: int,
    stem: str,
    stem_stride: int,
    style: Style,
    dtype: str,
) -> Model:
    if stem not in ("cifar", "imagenet"):
        raise UserError(f"stem={stem!r}: a ResNet stem is 'cifar' or 'imagenet'")
    compute = jnp.dtype(dtype)
    blocks = [Block("stem", Stem(width, stem == "imagenet", stem_stride, style, compute), mean_pool)]
    for stage, depth in enumerate(depths):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            blocks.append(Block(f"layer{stage + 1}.{i}", Residual(width * 2**stage, stride, style, compute), mean_pool))
    return assemble(blocks, num_classes=num_classes, projection_layers=projection_layers)


def _family(
    name: str, depths: tuple[int, ...], default_width: int, default_stem: str = "cifar", style: Style = _basic
) -> Callable[..., Model]:
    def build(
        num_classes: int,
        projection_layers: int = 0,
        width: int = default_width,
        stem: str = default_stem,
        stem_stride: int = 1,
        dtype: str = "float32",
    ) -> Model:
        return _build(
            depths,
            num_classes=num_classes,
            projection_layers=projection_layers,
            width=width,
            stem=stem,
            stem_stride=stem_stride,
            style=style,
            dtype=dtype,
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""{name}: {" + ".join(map(str, depths))} {"bottlenecks" if style.bottleneck else "basic blocks"}.

    Args:
      num_classes: classes of the linear classifier.
      projection_layers: layers between the penultimate feature and the classifier.
      width: channels of the first stage ({default_width} is the published network).
      stem: "cifar" (3x3) or "imagenet" (7x7/2 and a max-pool); {default_stem!r} by default.
      stem_stride: stride of the "cifar" stem; 2 trades resolution for speed.
      dtype: compute type, "float32" or "bfloat16"; parameters, statistics and pooled features stay float32.
    """
    return build


_bottleneck = Style(bottleneck=True)
resnet18 = _family("resnet18", (2, 2, 2, 2), 64)
resnet34 = _family("resnet34", (3, 4, 6, 3), 64)
resnet50 = _family("resnet50", (3, 4, 6, 3), 64, style=_bottleneck)
resnet101 = _family("resnet101", (3, 4, 23, 3), 64, style=_bottleneck)
resnet152 = _family("resnet152", (3, 8, 36, 3), 64, style=_bottleneck)

# The networks of 2015: a bottleneck strides in its first 1x1, convolutions have biases. Epsilon is 1e-3 in the first files
# for Keras, and 1.001e-5 in Keras's own later ones.
_original = Style(bottleneck=True, early=True, bias=True, epsilon=1e-3)
resnet50_original = _family("resnet50_original", (3, 4, 6, 3), 64, "imagenet", _original)
resnet101_original = _family("resnet101_original", (3, 4, 23, 3), 64, "imagenet", _original)
resnet152_original = _family("resnet152_original", (3, 8, 36, 3), 64, "imagenet", _original)
_keras = _original._replace(epsilon=1.001e-5)
resnet50_keras = _family("resnet50_keras", (3, 4, 6, 3), 64, "imagenet", _keras)
resnet101_keras = _family("resnet101_keras", (3, 4, 23, 3), 64, "imagenet", _keras)
resnet152_keras = _family("resnet152_keras", (3, 8, 36, 3), 64, "imagenet", _keras)

# The CIFAR family: depth 6n + 2, three stages, parameter-free shortcuts. 8 and 14 are below the published depths.
_cifar = Style(padded=True)
resnet8 = _family("resnet8", (1, 1, 1), 16, style=_cifar)
resnet14 = _family("resnet14", (2, 2, 2), 16, style=_cifar)
resnet20 = _family("resnet20", (3, 3, 3), 16, style=_cifar)
resnet32 = _family("resnet32", (5, 5, 5), 16, style=_cifar)
resnet44 = _family("resnet44", (7, 7, 7), 16, style=_cifar)
resnet56 = _family("resnet56", (9, 9, 9), 16, style=_cifar)
