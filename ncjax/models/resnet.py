"""Residual networks (He et al., 2016): the ImageNet family (v1.5: stride on the 3x3) and the CIFAR family.

Blocks: "stem", then "layerS.B" for block B of stage S, as in torchvision. A pooled feature is the spatial mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ncjax.models.sequential import Block, assemble, batch_norm, mean_pool
from ncjax.types import Array, Model, UserError

_kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(x: Array, width: int, kernel: int, stride: int, dtype: Any, name: str) -> Array:
    pad = kernel // 2
    return nn.Conv(width, (kernel, kernel), (stride, stride), ((pad, pad), (pad, pad)), use_bias=False, dtype=dtype,
                   kernel_init=_kernel_init, name=name)(x)


class Stem(nn.Module):
    """First convolution: 3x3 for small images, or 7x7/2 with a 3x3/2 max-pool for ImageNet sizes."""

    width: int
    imagenet: bool
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        x = x.astype(self.dtype)
        x = _conv(x, self.width, *((7, 2) if self.imagenet else (3, self.stride)), self.dtype, "conv1")
        x = nn.relu(batch_norm(x, train, mask, self.dtype, "bn1"))
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))) if self.imagenet else x


class Residual(nn.Module):
    """A basic block (two 3x3) or a bottleneck (1x1, 3x3, 1x1 with four times the width).

    The shortcut of a block that changes shape is a 1x1 convolution, or, with `padded` (option A of the CIFAR family),
    subsampling with zero-padded channels and no parameters.
    """

    width: int
    stride: int
    bottleneck: bool
    padded: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        width, stride, dtype = self.width, self.stride, self.dtype
        plan = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)] if self.bottleneck else [
            (width, 3, stride), (width, 3, 1)]
        y = x
        for i, (w, kernel, s) in enumerate(plan, 1):
            y = batch_norm(_conv(y, w, kernel, s, dtype, f"conv{i}"), train, mask, dtype, f"bn{i}")
            y = nn.relu(y) if i < len(plan) else y
        if x.shape != y.shape and self.padded:
            extra = y.shape[-1] - x.shape[-1]
            x = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))
        elif x.shape != y.shape:
            x = _conv(x, y.shape[-1], 1, stride, dtype, "downsample_conv")
            x = batch_norm(x, train, mask, dtype, "downsample_bn")
        return nn.relu(x + y)


def _build(depths: tuple[int, ...], *, num_classes: int, head: int, width: int, stem: str, stem_stride: int,
           bottleneck: bool, padded: bool, dtype: str) -> Model:
    if stem not in ("cifar", "imagenet"):
        raise UserError(f"stem={stem!r}: a ResNet stem is 'cifar' or 'imagenet'")
    compute = jnp.dtype(dtype)
    blocks = [Block("stem", Stem(width, stem == "imagenet", stem_stride, compute), mean_pool)]
    for stage, depth in enumerate(depths):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            module = Residual(width * 2**stage, stride, bottleneck, padded, compute)
            blocks.append(Block(f"layer{stage + 1}.{i}", module, mean_pool))
    return assemble(blocks, num_classes=num_classes, head=head)


def _family(depth: int, depths: tuple[int, ...], default_width: int, *, bottleneck: bool = False,
            padded: bool = False) -> Callable[..., Model]:
    def build(num_classes: int, head: int = 0, width: int = default_width, stem: str = "cifar", stem_stride: int = 1,
              dtype: str = "float32") -> Model:
        return _build(depths, num_classes=num_classes, head=head, width=width, stem=stem, stem_stride=stem_stride,
                      bottleneck=bottleneck, padded=padded, dtype=dtype)

    build.__name__ = build.__qualname__ = f"resnet{depth}"
    build.__doc__ = f"""ResNet-{depth}: {" + ".join(map(str, depths))} {"bottlenecks" if bottleneck else "basic blocks"}.

    Args:
      num_classes: classes of the linear classifier.
      head: projection layers between the penultimate feature and the classifier.
      width: channels of the first stage ({default_width} is the published network).
      stem: "cifar" (3x3) or "imagenet" (7x7/2 and a max-pool).
      stem_stride: stride of the "cifar" stem; 2 trades resolution for speed.
      dtype: compute type, "float32" or "bfloat16"; parameters, statistics and pooled features stay float32.
    """
    return build


resnet18 = _family(18, (2, 2, 2, 2), 64)
resnet34 = _family(34, (3, 4, 6, 3), 64)
resnet50 = _family(50, (3, 4, 6, 3), 64, bottleneck=True)
resnet101 = _family(101, (3, 4, 23, 3), 64, bottleneck=True)
resnet152 = _family(152, (3, 8, 36, 3), 64, bottleneck=True)

# The CIFAR family: depth 6n + 2, three stages, parameter-free shortcuts. 8 and 14 are below the published depths.
resnet8 = _family(8, (1, 1, 1), 16, padded=True)
resnet14 = _family(14, (2, 2, 2), 16, padded=True)
resnet20 = _family(20, (3, 3, 3), 16, padded=True)
resnet32 = _family(32, (5, 5, 5), 16, padded=True)
resnet44 = _family(44, (7, 7, 7), 16, padded=True)
resnet56 = _family(56, (9, 9, 9), 16, padded=True)
