"""Plain stacks of convolutions: AlexNet (Krizhevsky, 2014) and VGG (Simonyan and Zisserman, 2015), as in torchvision.

Blocks: "stageS.B", a convolution with its ReLU, B counted from the max-pool before stage S; "pool", the last max-pool;
"hidden1" and "hidden2", dense layers on a grid of fixed size. With `top=False` the last block is "pool", and its spatial
mean the penultimate feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, TypedDict, Unpack

import flax.linen as nn
import jax.numpy as jnp

from ncjax.core.types import Array, Model
from ncjax.core.values import DTYPE, PART
from ncjax.models.layers import Conv, adaptive_mean_pool, conv_norm, he_normal, identity, max_pool, mean_pool, torch_default
from ncjax.models.sequential import Block, assemble

HIDDEN = 4096


class Spec(NamedTuple):
    """One convolution."""

    width: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


class Convolution(nn.Module):
    """A max-pool of `window` pixels (0: none), a convolution with bias, BatchNorm if wanted, ReLU."""

    spec: Spec
    window: int
    norm: bool
    start: nn.initializers.Initializer
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        spec = self.spec
        x = max_pool(x, self.window) if self.window else x
        conv = Conv(
            spec.width,
            spec.kernel,
            spec.stride,
            spec.padding,
            bias=True,
            dtype=self.dtype,
            kernel_init=self.start,
            name="conv",
        )
        return conv_norm(x, conv, "bn", train, mask, activation="relu") if self.norm else conv(x, "relu")


class MaxPool(nn.Module):
    """The last max-pool."""

    window: int

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        return max_pool(x, self.window)


class Hidden(nn.Module):
    """Dense layer and ReLU; a map is first resized to `grid` and flattened in torch's order, channels first."""

    grid: int
    dropout: float
    start: nn.initializers.Initializer
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        if x.ndim == 4:
            x = adaptive_mean_pool(x, self.grid).transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout else x
        return nn.relu(nn.Dense(HIDDEN, dtype=self.dtype, kernel_init=self.start, name="dense")(x))


def _stack(
    stages: Sequence[Sequence[Spec]],
    *,
    window: int,
    grid: int,
    norm: bool,
    starts: tuple[nn.initializers.Initializer, nn.initializers.Initializer],
    top: bool,
    dropout: float,
    dtype: str,
    num_classes: int,
    projection_layers: int,
) -> Model:
    compute, blocks = jnp.dtype(dtype), []
    for s, specs in enumerate(stages, 1):
        for b, spec in enumerate(specs):
            module = Convolution(spec, window if s > 1 and b == 0 else 0, norm, starts[0], compute)
            blocks.append(Block(f"stage{s}.{b}", module, mean_pool))
    blocks.append(Block("pool", MaxPool(window), mean_pool))
    if top:
        blocks += [Block(f"hidden{i}", Hidden(grid, dropout, starts[1], compute), identity) for i in (1, 2)]
    return assemble(blocks, num_classes=num_classes, projection_layers=projection_layers)


class Options(TypedDict, total=False):
    """What may be set of every VGG.

    Args:
      top: the two hidden dense layers (default); without them the features are the spatial mean of the last map.
      dropout: rate before each hidden layer, in training mode only.
      dtype: compute type; parameters and pooled features stay float32.
    """

    top: bool
    dropout: Annotated[float, PART]
    dtype: Annotated[str, DTYPE]


def _vgg(stages: tuple[int, ...], norm: bool, num_classes: int, projection_layers: int, options: Options) -> Model:
    specs = [[Spec(min(64 << s, 512))] * count for s, count in enumerate(stages)]
    return _stack(
        specs,
        window=2,
        grid=7,
        norm=norm,
        starts=(he_normal, nn.initializers.normal(0.01)),
        top=options.get("top", True),
        dropout=options.get("dropout", 0.0),
        dtype=options.get("dtype", "float32"),
        num_classes=num_classes,
        projection_layers=projection_layers,
    )


def vgg11(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """VGG-11: 8 convolutions in 5 stages; options as in `Options`."""
    return _vgg((1, 1, 2, 2, 2), False, num_classes, projection_layers, options)


def vgg13(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """VGG-13: 10 convolutions in 5 stages; options as in `Options`."""
    return _vgg((2, 2, 2, 2, 2), False, num_classes, projection_layers, options)


def vgg16(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """VGG-16: 13 convolutions in 5 stages; options as in `Options`."""
    return _vgg((2, 2, 3, 3, 3), False, num_classes, projection_layers, options)


def vgg19(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """VGG-19: 16 convolutions in 5 stages; options as in `Options`."""
    return _vgg((2, 2, 4, 4, 4), False, num_classes, projection_layers, options)


def vgg11_bn(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """VGG-11 with BatchNorm: 8 convolutions in 5 stages; options as in `Options`."""
    return _vgg((1, 1, 2, 2, 2), True, num_classes, projection_layers, options)


def vgg13_bn(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """VGG-13 with BatchNorm: 10 convolutions in 5 stages; options as in `Options`."""
    return _vgg((2, 2, 2, 2, 2), True, num_classes, projection_layers, options)


def vgg16_bn(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """VGG-16 with BatchNorm: 13 convolutions in 5 stages; options as in `Options`."""
    return _vgg((2, 2, 3, 3, 3), True, num_classes, projection_layers, options)


def vgg19_bn(num_classes: int, projection_layers: int = 0, **options: Unpack[Options]) -> Model:
    """VGG-19 with BatchNorm: 16 convolutions in 5 stages; options as in `Options`."""
    return _vgg((2, 2, 4, 4, 4), True, num_classes, projection_layers, options)


def alexnet(
    num_classes: int,
    projection_layers: int = 0,
    top: bool = True,
    dropout: Annotated[float, PART] = 0.0,
    dtype: Annotated[str, DTYPE] = "float32",
) -> Model:
    """AlexNet as in "One weird trick": 5 convolutions.

    Args:
      num_classes: classes of the linear classifier.
      projection_layers: layers between the penultimate feature and the classifier.
      top: the two hidden dense layers; without them the features are the spatial mean of the last map.
      dropout: rate before each hidden layer, in training mode only.
      dtype: compute type; parameters and pooled features stay float32.
    """
    specs = [[Spec(64, 11, 4, 2)], [Spec(192, 5, 1, 2)], [Spec(384), Spec(256), Spec(256)]]
    return _stack(
        specs,
        window=3,
        grid=6,
        norm=False,
        starts=(torch_default, torch_default),
        top=top,
        dropout=dropout,
        dtype=dtype,
        num_classes=num_classes,
        projection_layers=projection_layers,
    )
