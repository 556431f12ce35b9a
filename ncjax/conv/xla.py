"""XLA's own convolutions in the forms that are fast on a CPU. Figures: two cores (AMD Zen 5), jax 0.10.2, 128 images.

Tried without gain there, page faults being out of the way (`ncjax.core.memory`): two simulated devices (1.04 times as
fast, and they can wait for each other forever), `xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INVALID` (1.0),
a weight gradient as nine matrix products (0.4 to 1.3) or of columns (0.5 to 1.1), forward pass and data gradient in pieces
(0.7 to 1.1). All that is elementwise, BatchNorm with it, takes less than a tenth of a ResNet-20's step: nothing to gain
there.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from ncjax.core.types import Array

Pads = tuple[tuple[int, int], tuple[int, int]]
PIECES = 4  # of a batch, in a weight gradient: 1.1 to 1.8 times as fast as in one; with 16, no faster and slow to compile


def _whole(x: Array, kernel: Array, stride: int, pads: Pads, groups: int) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def _shifted(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """A depthwise convolution as a sum of shifted images: XLA's grouped convolution is many times slower."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], kernel.shape[:2], strict=True))
    total = None
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            seen = x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
            term = seen * kernel[i, j, 0]
            total = term if total is None else total + term
    return total


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _in_pieces(x: Array, kernel: Array, stride: int, pads: Pads, groups: int) -> Array:
    return _whole(x, kernel, stride, pads, groups)


def _forward(x, kernel, stride, pads, groups):
    wanted = tuple(() if of.perturbed else None for of in (x, kernel))  # known when traced
    return _whole(x.value, kernel.value, stride, pads, groups), (x.value, kernel.value, wanted)


def _backward(stride, pads, groups, kept, dy):
    x, kernel, (of_x, of_kernel) = kept
    if isinstance(dy, jax.custom_derivatives.SymbolicZero):
        dy = jnp.zeros(dy.shape, dy.dtype)  # pyright: ignore[reportArgumentType]

    def gradient(of: int, x: Array, dy: Array) -> Array:
        def convolved(a: Array) -> Array:
            return _whole(a if of == 0 else x, kernel if of == 0 else a, stride, pads, groups)

        return jax.linear_transpose(convolved, (x, kernel)[of])(dy)[0]

    pieces = zip(jnp.split(x, PIECES), jnp.split(dy, PIECES), strict=True)
    return (
        None if of_x is None else gradient(0, x, dy),
        None if of_kernel is None else sum(gradient(1, *piece) for piece in pieces),
    )


# What nobody differentiates is not even traced: the FLOPs of a step are counted before XLA takes out what is unused.
_in_pieces.defvjp(_forward, _backward, symbolic_zeros=True)


def convolve(x: Array, kernel: Array, *, stride: int, pads: Pads, groups: int) -> Array:
    """A convolution of [N, H, W, C] by [h, w, C / groups, D], in the form that suits where it runs.

    On one CPU device forward-mode derivatives are not defined where the batch divides into `PIECES`.
    """
    if jax.default_backend() == "cpu":
        if groups > 1 and groups == x.shape[-1] == kernel.shape[-1]:
            return _shifted(x, kernel, stride, pads)
        # Over several devices pieces of a batch would have to be moved.
        if x.shape[0] % PIECES == 0 and jax.device_count() == 1:
            return _in_pieces(x, kernel, stride, pads, groups)
    return _whole(x, kernel, stride, pads, groups)
