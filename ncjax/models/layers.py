"""Layers that several families share: convolutions through one door, BatchNorm over real rows, pooling of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ncjax import conv
from ncjax.conv import xla
from ncjax.core.errors import UserError
from ncjax.core.types import Array

STATISTICS_MOMENTUM = 0.9  # of BatchNorm's running statistics
Padding = str | int | Sequence[tuple[int, int]]

# How weights start, as in the publications' own code (torchvision, timm).
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
he_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
he_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
torch_default = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # of layers that nothing else is said of


def he_per_group(groups: int) -> nn.initializers.Initializer:
    """He et al.'s, with the outputs of one group as the fan: depthwise kernels of EfficientNet."""
    return nn.initializers.variance_scaling(2.0 * groups, "fan_out", "normal")


def _pads(x: Array, kernel: Sequence[int], stride: int, padding: Padding) -> xla.Pads:
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel, (stride, stride), padding)
    above, beside = padding
    return above, beside


def _large_enough(x: Array, window: Sequence[int], pads: Sequence[tuple[int, int]]) -> None:
    if any(n + sum(p) < k for n, p, k in zip(x.shape[1:3], pads, window, strict=True)):
        raise UserError(
            f"images are too small for this network: maps of {x.shape[1]}x{x.shape[2]} pixels meet a window of "
            f"{window[0]}x{window[1]}; raise image_size"
        )


ACTIVATIONS = {None: lambda x: x, "relu": nn.relu, "relu6": jax.nn.relu6}


def convolve(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    activation: str | None = None,
) -> Array:
    """Every convolution of every model, with what follows it where that can be done in the same breath.

    Args:
      x: [N, H, W, C].
      kernel: [h, w, C / groups, D], in the type of `x` or float32.
      bias: [D] or None.
      stride: of both axes.
      padding: pixels on every side, ((top, bottom), (left, right)), "VALID", or "SAME" (TensorFlow's, which puts an odd
        pixel at the bottom and right).
      groups: sets of channels that do not see each other.
      activation: None, "relu" or "relu6".

    Returns:
      [N, H', W', D].
    """
    pads = _pads(x, kernel.shape[:2], stride, padding)
    _large_enough(x, kernel.shape[:2], pads)
    if conv.convolves(x.dtype):
        return conv.convolve(x, kernel, bias, stride=stride, pads=pads, groups=groups, activation=activation)
    y = xla.convolve(x, kernel.astype(x.dtype), stride=stride, pads=pads, groups=groups)
    # Added in float32, where XLA fuses it with what follows: an offset rounded to bfloat16 would shift a whole channel.
    y = y if bias is None else y.astype(jnp.float32) + bias
    return ACTIVATIONS[activation](y).astype(x.dtype)


class Conv(nn.Module):
    """`convolve` with its kernel and, on request, a bias and an activation.

    Called with `affine` (multipliers and offsets [D] of what follows, a BatchNorm with fixed statistics), it convolves with
    kernel and bias into which they are folded: m (w * x + b) + o = (m w) * x + (m b + o).
    """

    width: int
    kernel: int
    stride: int = 1
    padding: Padding | None = None  # None: half of the kernel
    groups: int = 1
    bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = he_normal

    @nn.compact
    def __call__(self, x: Array, activation: str | None = None, affine: tuple[Array, Array] | None = None) -> Array:
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.width)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32) if self.bias else None
        if affine is not None:
            multiplier, offset = affine
            kernel, bias = kernel * multiplier, offset if bias is None else bias * multiplier + offset
        return convolve(
            x.astype(self.dtype),
            kernel,
            bias,
            stride=self.stride,
            groups=self.groups,
            padding=self.kernel // 2 if self.padding is None else self.padding,
            activation=activation,
        )


class Fixed(nn.Module):
    """BatchNorm with fixed statistics as (multipliers, offsets) of `width` channels; the variables are `nn.BatchNorm`'s."""

    width: int
    epsilon: float

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        shape = (self.width,)
        scale, bias = (
            self.param(name, start, shape, jnp.float32)
            for name, start in (("scale", nn.initializers.ones), ("bias", nn.initializers.zeros))
        )
        mean, var = (
            self.variable("batch_stats", name, start, shape, jnp.float32).value
            for name, start in (("mean", jnp.zeros), ("var", jnp.ones))
        )
        multiplier = scale * jax.lax.rsqrt(var + self.epsilon)
        return multiplier, bias - mean * multiplier


def batch_norm(x: Array, train: bool, mask: Array | None, dtype: Any, name: str, epsilon: float = 1e-5) -> Array:
    """BatchNorm over real rows only. Running statistics move when `train`; call inside a compact module."""
    if mask is not None:
        mask = mask.reshape(mask.shape + (1,) * (x.ndim - 1)) > 0
    norm = nn.BatchNorm(
        use_running_average=not train, momentum=STATISTICS_MOMENTUM, epsilon=epsilon, dtype=dtype, name=name
    )
    return norm(x, mask=mask if train else None)


def conv_norm(
    x: Array, conv: Conv, norm: str, train: bool, mask: Array | None, epsilon: float = 1e-5, activation: str | None = None
) -> Array:
    """A convolution, BatchNorm named `norm`, and an activation: one convolution where the statistics are fixed."""
    if train:
        return ACTIVATIONS[activation](batch_norm(conv(x), True, mask, conv.dtype, norm, epsilon))
    return conv(x, activation, Fixed(conv.width, epsilon, name=norm)())


def max_pool(x: Array, window: int = 3, stride: int = 2, padding: int = 0, *, ceil: bool = False) -> Array:
    """Largest value of each window; with `ceil`, windows that hang over the far edge count too."""
    _large_enough(x, (window, window), [(padding, padding)] * 2)
    far = [(-(n + 2 * padding - window) % stride) if ceil else 0 for n in x.shape[1:3]]
    pads = [(padding, padding + f) for f in far]
    return nn.max_pool(x, (window,) * 2, (stride,) * 2, pads)  # pyright: ignore[reportArgumentType]


def halve(x: Array) -> Array:
    """Means of 2x2 windows; an odd row or column at the far edge is left out."""
    _large_enough(x, (2, 2), [(0, 0)] * 2)
    return nn.avg_pool(x, (2, 2), (2, 2))


def adaptive_mean_pool(x: Array, size: int) -> Array:
    """[N, H, W, D] -> [N, size, size, D]: cell i is the mean of rows floor(i H / size) up to ceil((i + 1) H / size)."""

    def weights(length: int) -> np.ndarray:  # [size, length]
        out = np.zeros((size, length), np.float32)
        for i in range(size):
            first, end = i * length // size, -(-(i + 1) * length // size)
            out[i, first:end] = 1 / (end - first)
        return out

    if x.shape[1:3] == (size, size):
        return x
    return jnp.einsum(
        "ih,jw,nhwd->nijd", weights(x.shape[1]), weights(x.shape[2]), x.astype(jnp.float32), precision="highest"
    ).astype(x.dtype)


def mean_pool(x: Array) -> Array:
    """[N, H, W, D] -> [N, D]."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


def first_token(x: Array) -> Array:
    """[N, T, D] -> [N, D], the class token."""
    return x[:, 0]


def identity(x: Array) -> Array:
    """[N, D] as it is."""
    return x
