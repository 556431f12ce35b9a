"""Residual networks (He et al., 2016): the ImageNet family (v1.5: stride on the 3x3; and the original), the CIFAR family.

Blocks: "stem", then "layerS.B" for block B of stage S, as in torchvision. A pooled feature is the spatial mean.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, TypedDict, Unpack

import flax.linen as nn
import jax.numpy as jnp

from ncjax.core.errors import UserError
from ncjax.core.types import Array, Model
from ncjax.core.values import CHANNELS, DTYPE, OneOf, between
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
_bottleneck = Style(bottleneck=True)
# The networks of 2015: a bottleneck strides in its first 1x1, convolutions have biases. Epsilon is 1e-3 in the first files
# for Keras, and 1.001e-5 in Keras's own later ones.
_original = Style(bottleneck=True, early=True, bias=True, epsilon=1e-3)
_keras = _original._replace(epsilon=1.001e-5)
_cifar = Style(padded=True)  # depth 6n + 2, three stages, parameter-free shortcuts; 8 and 14 are below the published depths


class Options(TypedDict, total=False):
    """What may be set of every ResNet.

    Args:
      width: channels of the first stage; by default the published network's, 64, or 16 of CIFAR's family.
      stem: "cifar" (3x3) or "imagenet" (7x7/2 and a max-pool); the networks of 2015 have the latter by default.
      stem_stride: stride of the "cifar" stem; 2 trades resolution for speed.
      dtype: compute type, "float32" or "bfloat16"; parameters, statistics and pooled features stay float32.
    """

    width: Annotated[int, CHANNELS]
    stem: Annotated[str, OneOf("cifar", "imagenet")]
    stem_stride: Annotated[int, between(1, 8)]
    dtype: Annotated[str, DTYPE]


def _build(
    depths: tuple[int, ...],
    num_classes: int,
    projection_layers: int,
    style: Style,
    *,
    width: int,
    stem: str,
    options: Options,
) -> Model:
    width, stem = options.get("width", width), options.get("stem", stem)
    if stem not in ("cifar", "imagenet"):
        raise UserError(f"stem={stem!r}: a ResNet stem is 'cifar' or 'imagenet'")
    compute = jnp.dtype(options.get("dtype", "float32"))
    first = Stem(width, stem == "imagenet", options.get("stem_stride", 1), style, compute)
    blocks = [Block("stem", first, mean_pool)]
    for stage, depth in enumerate(depths):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            blocks.append(Block(f"layer{stage + 1}.{i}", Residual(width * 2**stage, stride, style, compute), mean_pool))
    return assemble(blocks, num_classes=num_classes, projection_layers=projection_layers)


def resnet18(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ResNet-18: 2 + 2 + 2 + 2 basic blocks; options as in `Options`."""
    return _build((2, 2, 2, 2), num_classes, projection_layers, _basic, width=64, stem="cifar", options=options)


def resnet34(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ResNet-34: 3 + 4 + 6 + 3 basic blocks; options as in `Options`."""
    return _build((3, 4, 6, 3), num_classes, projection_layers, _basic, width=64, stem="cifar", options=options)


def resnet50(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ResNet-50: 3 + 4 + 6 + 3 bottlenecks; options as in `Options`."""
    return _build((3, 4, 6, 3), num_classes, projection_layers, _bottleneck, width=64, stem="cifar", options=options)


def resnet101(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ResNet-101: 3 + 4 + 23 + 3 bottlenecks; options as in `Options`."""
    return _build((3, 4, 23, 3), num_classes, projection_layers, _bottleneck, width=64, stem="cifar", options=options)


def resnet152(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ResNet-152: 3 + 8 + 36 + 3 bottlenecks; options as in `Options`."""
    return _build((3, 8, 36, 3), num_classes, projection_layers, _bottleneck, width=64, stem="cifar", options=options)


def resnet50_original(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ResNet-50 of 2015: 3 + 4 + 6 + 3 bottlenecks; options as in `Options`."""
    return _build((3, 4, 6, 3), num_classes, projection_layers, _original, width=64, stem="imagenet", options=options)


def resnet101_original(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ResNet-101 of 2015: 3 + 4 + 23 + 3 bottlenecks; options as in `Options`."""
    return _build((3, 4, 23, 3), num_classes, projection_layers, _original, width=64, stem="imagenet", options=options)


def resnet152_original(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ResNet-152 of 2015: 3 + 8 + 36 + 3 bottlenecks; options as in `Options`."""
    return _build((3, 8, 36, 3), num_classes, projection_layers, _original, width=64, stem="imagenet", options=options)


def resnet50_keras(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ResNet-50 of 2015, as Keras has it now: 3 + 4 + 6 + 3 bottlenecks; options as in `Options`."""
    return _build((3, 4, 6, 3), num_classes, projection_layers, _keras, width=64, stem="imagenet", options=options)


def resnet101_keras(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ResNet-101 of 2015, as Keras has it now: 3 + 4 + 23 + 3 bottlenecks; options as in `Options`."""
    return _build((3, 4, 23, 3), num_classes, projection_layers, _keras, width=64, stem="imagenet", options=options)


def resnet152_keras(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """ResNet-152 of 2015, as Keras has it now: 3 + 8 + 36 + 3 bottlenecks; options as in `Options`."""
    return _build((3, 8, 36, 3), num_classes, projection_layers, _keras, width=64, stem="imagenet", options=options)


def resnet8(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """CIFAR's ResNet-8: 1 + 1 + 1 basic blocks; options as in `Options`."""
    return _build((1, 1, 1), num_classes, projection_layers, _cifar, width=16, stem="cifar", options=options)


def resnet14(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """CIFAR's ResNet-14: 2 + 2 + 2 basic blocks; options as in `Options`."""
    return _build((2, 2, 2), num_classes, projection_layers, _cifar, width=16, stem="cifar", options=options)


def resnet20(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """CIFAR's ResNet-20: 3 + 3 + 3 basic blocks; options as in `Options`."""
    return _build((3, 3, 3), num_classes, projection_layers, _cifar, width=16, stem="cifar", options=options)


def resnet32(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """CIFAR's ResNet-32: 5 + 5 + 5 basic blocks; options as in `Options`."""
    return _build((5, 5, 5), num_classes, projection_layers, _cifar, width=16, stem="cifar", options=options)


def resnet44(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """CIFAR's ResNet-44: 7 + 7 + 7 basic blocks; options as in `Options`."""
    return _build((7, 7, 7), num_classes, projection_layers, _cifar, width=16, stem="cifar", options=options)


def resnet56(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """CIFAR's ResNet-56: 9 + 9 + 9 basic blocks; options as in `Options`."""
    return _build((9, 9, 9), num_classes, projection_layers, _cifar, width=16, stem="cifar", options=options)
