"""oneDNN's convolutions against XLA's, in a process with one CPU device. Prints "same", or fails."""

import itertools
import multiprocessing
import os
import warnings

os.environ["NCJAX_CONV"] = "onednn"

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ncjax import conv
from ncjax.conv import onednn
from ncjax.core import mesh
from ncjax.core.types import Batch, Network
from ncjax.data.images import Lazy, take
from ncjax.losses import cross_entropy
from ncjax.models import layers, resnet
from ncjax.training import cost, loop
from ncjax.tuning import methods
from ncjax.tuning.plans import Target

assert conv.implementation() == "onednn"
assert "onednn" in conv.header()


def reference(x, kernel, stride, pads, groups):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision="highest",
    )


def close(a, b, tolerance):
    gap = float(jnp.abs(jnp.asarray(a, jnp.float32) - b).max() / jnp.abs(b).max())
    assert gap < tolerance, gap


PADDINGS = (0, 1, "SAME", ((0, 1), (2, 1)))
for kernel, stride, groups, padding in itertools.product((1, 3, 4, 5, 7), (1, 2), (1, 4, 8), PADDINGS):
    x = jax.random.normal(jax.random.key(0), (3, 11, 9, 8))
    w = jax.random.normal(jax.random.key(1), (kernel, kernel, 8 // groups, 16 if groups < 8 else 8)) / kernel
    pads = layers._pads(x, (kernel, kernel), stride, padding)
    shape = reference(x, w, stride, pads, groups).shape
    dy = jnp.sin(jnp.arange(np.prod(shape))).reshape(shape)

    def ours(x, w, stride=stride, padding=padding, groups=groups):
        return layers.convolve(x, w, stride=stride, padding=padding, groups=groups)

    y, back = jax.vjp(ours, x, w)
    wanted, wanted_back = jax.vjp(lambda x, w, s=stride, p=pads, g=groups: reference(x, w, s, p, g), x, w)
    close(y, wanted, 1e-5)
    for a, b in zip(back(dy), wanted_back(dy), strict=True):
        close(a, b, 1e-5)
    if kernel > 3 or padding == 0 or not conv.bfloat16():
        continue
    # bfloat16 images and kernels have 8 bits each: with the same ones in float32, only the result is rounded.
    low, small = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16).astype(jnp.float32)
    y, back = jax.vjp(ours, low, small)
    wanted, wanted_back = jax.vjp(
        lambda x, w, s=stride, p=pads, g=groups: reference(x, w, s, p, g), low.astype(jnp.float32), small
    )
    slope = dy.astype(jnp.bfloat16)
    dx, dw = back(slope)
    assert (y.dtype, dx.dtype, dw.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    close(y, wanted, 4e-3)
    for a, b, tolerance in zip((dx, dw), wanted_back(slope.astype(jnp.float32)), (4e-3, 1e-5), strict=True):
        close(a, b, tolerance)

# What follows a convolution in the same call: bias and activation, with all gradients.
TYPES = (jnp.float32, jnp.bfloat16) if conv.bfloat16() else (jnp.float32,)
for activation, groups, stride, dtype in itertools.product((None, "relu", "relu6"), (1, 8), (1, 2), TYPES):
    x = jax.random.normal(jax.random.key(0), (3, 11, 9, 8)).astype(dtype)
    w = 3 * jax.random.normal(jax.random.key(1), (3, 3, 8 // groups, 8)).astype(dtype).astype(jnp.float32)
    b = jax.random.normal(jax.random.key(2), (8,))

    def plain(x, w, b, activation=activation, groups=groups, stride=stride):
        return layers.ACTIVATIONS[activation](reference(x, w, stride, [(1, 1)] * 2, groups) + b)

    y, back = jax.vjp(
        lambda x, w, b, a=activation, g=groups, s=stride: layers.convolve(
            x, w, b, stride=s, padding=1, groups=g, activation=a
        ),
        x,
        w,
        b,
    )
    wanted, wanted_back = jax.vjp(plain, x.astype(jnp.float32), w, b)
    dy = jnp.sin(jnp.arange(y.size)).reshape(y.shape).astype(dtype)
    low = dtype == jnp.bfloat16
    close(y, wanted, 2.5e-2 if low else 1e-5)  # rounded where sums are as large as before the activation
    for found, right in zip(back(dy), wanted_back(dy.astype(jnp.float32)), strict=True):
        assert found.dtype == (dtype if found.shape == x.shape else jnp.float32)
        if not low or activation != "relu6":  # what rounds to 6 has no slope
            close(found, right, 6e-3 if found.dtype == jnp.bfloat16 else 1e-5)

    lost = layers.convolve(x.at[0].set(jnp.nan), w, b, stride=stride, padding=1, groups=groups, activation=activation)
    assert bool(jnp.isnan(lost[0]).all() & jnp.isfinite(lost[1:].astype(jnp.float32)).all()), "NaN is seen"
assert layers.ACTIVATIONS.keys() == set(onednn.ACTIVATIONS)

x, w = jax.random.normal(jax.random.key(0), (2, 9, 9, 8)), jax.random.normal(jax.random.key(1), (3, 3, 8, 8))
many = jax.vmap(lambda w: layers.convolve(x, w, padding=1))(jnp.stack([w, 2 * w]))
close(many[1], 2 * reference(x, w, 1, ((1, 1),) * 2, 1), 1e-5)
with conv.as_xla():
    np.testing.assert_allclose(layers.convolve(x, w, padding=1), reference(x, w, 1, ((1, 1),) * 2, 1), atol=1e-4)

# Threads of OpenMP do not survive a fork: a child that reads data, as loaders fork them, ends, and its parent goes on.
images = Lazy(np.arange(8), lambda i: np.full((4, 4, 3), i, np.uint8))
with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # JAX's, of any fork
    child = multiprocessing.get_context("fork").Process(target=take, args=(images, np.arange(8)))
    child.start()
child.join(60)
assert child.exitcode == 0, child.exitcode
close(layers.convolve(x, w, padding=1), reference(x, w, 1, ((1, 1),) * 2, 1), 1e-5)

# FLOPs are counted although XLA sees none of the convolutions; fewer where less is tuned.
network = resnet.resnet8(5)
variables = jax.jit(network.init, static_argnums=1)(jax.random.key(0), (16, 16, 3))
devices = mesh.make()
batch = Batch(jax.random.normal(jax.random.key(2), (32, 16, 16, 3)), jnp.arange(32) % 5, jnp.ones(32))


def stepped(method, network):
    whole = Network(SimpleNamespace(image_shape=(16, 16, 3)), network, variables)
    plan = getattr(methods, method)(whole, Target(5, jax.random.key(1)))
    tx = optax.sgd(0.05, momentum=0.9)
    state = loop.init_state(plan.variables, tx, plan.mask, jax.random.key(0), devices)
    return loop.make_step(plan.model.apply, cross_entropy(), tx, plan.mask, plan.live, devices, ragged=0), state


counted = {method: cost.flops(*stepped(method, network), batch) for method in ("full_ft", "probe")}
assert counted["full_ft"] > 2.5 * counted["probe"] > 0, counted
ran, begun = stepped("full_ft", network)
ran.lower(begun, batch).compile()
assert cost.flops(ran, begun, batch) == counted["full_ft"]  # compiled or not


def loss_after(steps, network):
    step, state = stepped("full_ft", network)
    for _ in range(steps):
        state, loss = step(state, batch)
    return float(loss)


with conv.as_xla():
    wanted = loss_after(50, network)
    wanted_low = loss_after(20, resnet.resnet8(5, dtype="bfloat16"))
assert abs(loss_after(50, network) / wanted - 1) < 0.01
assert abs(loss_after(20, resnet.resnet8(5, dtype="bfloat16")) / wanted_low - 1) < 0.1
print("same")
