"""oneDNN's convolutions over two CPU devices against XLA's. Prints "same", or fails."""

import itertools
import os
import tempfile

folder = tempfile.TemporaryDirectory()
os.environ["NCJAX_CONV"] = "onednn"
os.environ["JAX_NUM_CPU_DEVICES"] = "2"
os.environ["NPROC"] = "16"  # devices that wait for each other hold a thread each
os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import jax.numpy as jnp
import numpy as np

from ncjax import conv
from ncjax.core import mesh as meshes
from ncjax.models import layers, resnet

assert jax.device_count() == 2
assert conv.implementation() == "onednn"
mesh = meshes.make()
rng = np.random.default_rng(0)


def placed(*arrays, sharding):
    return [jax.device_put(np.asarray(a, np.float32), sharding) for a in arrays]


def close(found, wanted, tolerance=2e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        gap = np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max()
        assert gap < tolerance, gap


def both(function, *args):
    with conv.as_xla():
        wanted = jax.jit(lambda *args: function(*args))(*args)
    compiled = jax.jit(lambda *args: function(*args)).lower(*args).compile()
    return compiled(*args), wanted, compiled.as_text()


for (stride, activation), groups, size in itertools.product(((1, None), (2, "relu")), (4, 1), (6, 5)):
    (x,) = placed(rng.normal(size=(6, 9, 7, 4)), sharding=meshes.split(mesh))
    kernel, bias = placed(rng.normal(size=(3, 3, 4 // groups, 8)), rng.normal(size=8), sharding=meshes.replicated(mesh))

    def loss(x, kernel, bias, s=stride, g=groups, a=activation, n=size):
        y = layers.convolve(x[:n], kernel, bias, stride=s, padding=1, groups=g, activation=a)
        return jnp.sum(jnp.sin(layers.convolve(y, jnp.full((1, 1, 8, 3), 0.05))))

    found, wanted, text = both(jax.value_and_grad(loss, (0, 1, 2)), x, kernel, bias)
    close(found, wanted)
    if size == 6:  # five cannot be split over two devices: each convolves them all
        assert found[1][0].sharding.is_equivalent_to(x.sharding, 4)
        assert "all-gather" not in text  # no device sees another's images
        assert "all-reduce" in text  # of the kernel's gradient

# What is kept on disk is not taken for another convolution of the same shapes.
for activation, padding in itertools.product(("relu", "relu6"), (1, ((0, 2), (2, 0)))):
    found, wanted, _ = both(
        lambda x, k, b, a=activation, p=padding: layers.convolve(x, 9 * k, b, padding=p, activation=a), x, kernel, bias
    )
    close(found, wanted)
assert os.listdir(folder.name)

(x,), (kernels,) = (
    placed(rng.normal(size=(6, 9, 7, 4)), sharding=meshes.split(mesh)),
    placed(rng.normal(size=(2, 3, 3, 4, 8)), sharding=meshes.replicated(mesh)),
)
mapped, wanted, _ = both(jax.vmap(lambda x, k: layers.convolve(x, k, padding=1), (None, 0)), x, kernels)
close(mapped, wanted)

model = resnet.resnet8(5)
variables = jax.device_put(model.init(jax.random.key(0), (16, 16, 3)), meshes.replicated(mesh))
(images,) = placed(rng.normal(size=(32, 16, 16, 3)), sharding=meshes.split(mesh))


def trained(params, images):
    features, _ = model.apply({**variables, "params": params}, images, live=frozenset(model.layers[:3]))
    return jnp.mean(jax.nn.logsumexp(features["logits"], axis=1))


found, wanted, _ = both(jax.value_and_grad(trained), variables["params"], images)
close(found[0], wanted[0], 1e-4)
close(found[1]["head"], wanted[1]["head"], 1e-3)
print("same")
