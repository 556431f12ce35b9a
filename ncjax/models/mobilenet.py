"""Networks of inverted residuals: MobileNetV2 (Sandler et al., 2018) and EfficientNet-Lite (Tan and Le, 2019; Liu, 2020).

Blocks: "stem", then "stageS.B" for block B of stage S, then "last", a 1x1 convolution. A pooled feature is the spatial
mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp

from ncjax.core.types import Array, Model
from ncjax.core.values import DTYPE
from ncjax.models.layers import Conv, Padding, conv_norm, he_normal, he_per_group, mean_pool
from ncjax.models.sequential import Block, assemble


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, ReLU6."""

    width: int
    kernel: int
    stride: int
    padding: Padding | None
    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        conv = Conv(self.width, self.kernel, self.stride, self.padding, dtype=self.dtype, name="conv")
        return conv_norm(x, conv, "bn", train, mask, self.epsilon, "relu6")


class InvertedResidual(nn.Module):
    """1x1 to `expand` times the width, depthwise, 1x1 back without activation; a sum where shapes allow one."""

    width: int
    kernel: int
    stride: int
    expand: int
    padding: Padding | None
    epsilon: float
    per_group: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        def step(y: Array, conv: Conv, name: str, activation: str | None) -> Array:
            return conv_norm(y, conv, name, train, mask, self.epsilon, activation)

        inner, y = self.expand * x.shape[-1], x
        if self.expand > 1:
            y = step(y, Conv(inner, 1, dtype=self.dtype, name="expand_conv"), "expand_bn", "relu6")
        start = he_per_group(inner) if self.per_group else he_normal
        depthwise = Conv(
            inner,
            self.kernel,
            self.stride,
            self.padding,
            inner,
            dtype=self.dtype,
            kernel_init=start,
            name="depthwise_conv",
        )
        y = step(y, depthwise, "depthwise_bn", "relu6")
        y = step(y, Conv(self.width, 1, dtype=self.dtype, name="project_conv"), "project_bn", None)
        return x + y if self.stride == 1 and x.shape[-1] == self.width else y


def _stack(
    stages: Sequence[tuple[int, int, int, int, int]],
    *,
    stem: int,
    last: int,
    padding: Padding | None,
    epsilon: float,
    per_group: bool,
    dtype: str,
    num_classes: int,
    projection_layers: int,
) -> Model:
    """A network from stages (kernel, stride of the first block, expansion, width, blocks)."""
    compute = jnp.dtype(dtype)
    blocks = [Block("stem", ConvNorm(stem, 3, 2, padding, epsilon, compute), mean_pool)]
    for s, (kernel, stride, expand, width, depth) in enumerate(stages, 1):
        for b in range(depth):
            module = InvertedResidual(width, kernel, stride if b == 0 else 1, expand, padding, epsilon, per_group, compute)
            blocks.append(Block(f"stage{s}.{b}", module, mean_pool))
    blocks.append(Block("last", ConvNorm(last, 1, 1, 0, epsilon, compute), mean_pool))
    return assemble(blocks, num_classes=num_classes, projection_layers=projection_layers)


def mobilenet_v2(num_classes: int, projection_layers: int = 0, dtype: Annotated[str, DTYPE] = "float32") -> Model:
    """MobileNetV2 of width 1.0: 17 inverted residuals in 7 stages, features of width 1280.

    Args:
      num_classes: classes of the linear classifier.
      projection_layers: layers between the penultimate feature and the classifier.
      dtype: compute type; parameters, statistics and pooled features stay float32.
    """
    stages = [
        (3, 1, 1, 16, 1),
        (3, 2, 6, 24, 2),
        (3, 2, 6, 32, 3),
        (3, 2, 6, 64, 4),
        (3, 1, 6, 96, 3),
        (3, 2, 6, 160, 3),
        (3, 1, 6, 320, 1),
    ]
    return _stack(
        stages,
        stem=32,
        last=1280,
        padding=None,
        epsilon=1e-5,
        per_group=False,
        dtype=dtype,
        num_classes=num_classes,
        projection_layers=projection_layers,
    )


LITE = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))  # EfficientNet-Lite 0 to 4: wider by, deeper by
_LITE = (  # kernel, stride, expansion, width and depth of each stage of EfficientNet-Lite0
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def _lite(wider: float, deeper: float, num_classes: int, projection_layers: int, dtype: str) -> Model:
    """EfficientNet-Lite: inverted residuals without squeeze-excitation; convolutions pad as TensorFlow does."""

    def width(w: int) -> int:  # to a multiple of 8, and at most a tenth below
        rounded = max(8, int(w * wider + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * w * wider else rounded

    stages = [(k, s, e, width(w), d if i in (0, 6) else math.ceil(d * deeper)) for i, (k, s, e, w, d) in enumerate(_LITE)]
    return _stack(
        stages,
        stem=32,
        last=1280,
        padding="SAME",
        epsilon=1e-3,
        per_group=True,
        dtype=dtype,
        num_classes=num_classes,
        projection_layers=projection_layers,
    )


def efficientnet_lite0(num_classes: int, projection_layers: int = 0, dtype: Annotated[str, DTYPE] = "float32") -> Model:
    """EfficientNet-Lite0: 1.0 times as wide and 1.0 times as deep as Lite0, computed in `dtype`."""
    return _lite(*LITE[0], num_classes, projection_layers, dtype)


def efficientnet_lite1(num_classes: int, projection_layers: int = 0, dtype: Annotated[str, DTYPE] = "float32") -> Model:
    """EfficientNet-Lite1: 1.0 times as wide and 1.1 times as deep as Lite0, computed in `dtype`."""
    return _lite(*LITE[1], num_classes, projection_layers, dtype)


def efficientnet_lite2(num_classes: int, projection_layers: int = 0, dtype: Annotated[str, DTYPE] = "float32") -> Model:
    """EfficientNet-Lite2: 1.1 times as wide and 1.2 times as deep as Lite0, computed in `dtype`."""
    return _lite(*LITE[2], num_classes, projection_layers, dtype)


def efficientnet_lite3(num_classes: int, projection_layers: int = 0, dtype: Annotated[str, DTYPE] = "float32") -> Model:
    """EfficientNet-Lite3: 1.2 times as wide and 1.4 times as deep as Lite0, computed in `dtype`."""
    return _lite(*LITE[3], num_classes, projection_layers, dtype)


def efficientnet_lite4(num_classes: int, projection_layers: int = 0, dtype: Annotated[str, DTYPE] = "float32") -> Model:
    """EfficientNet-Lite4: 1.4 times as wide and 1.8 times as deep as Lite0, computed in `dtype`."""
    return _lite(*LITE[4], num_classes, projection_layers, dtype)
