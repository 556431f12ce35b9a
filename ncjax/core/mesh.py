"""All of the parallelism: one mesh over every device, batches split over it, everything else replicated.

Steps are written once, as pure functions of global arrays; `jit` maps them over the mesh and inserts the collectives.
Nothing in models, losses or metrics knows that devices exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ncjax.core.types import PyTree


def make(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-axis mesh named `data` over `devices` (default: all of them, on every host)."""
    devices = jax.devices() if devices is None else list(devices)
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of parameters, statistics and resident data sets."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def place(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Host arrays -> global arrays. Every process holds the whole value, and hands over only its own part."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def one(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree)


def place_rows(mesh: Mesh, count: int, read: Callable[[slice], PyTree]) -> PyTree:
    """A batch of `count` rows split over the mesh; `read(rows)` is asked only for the rows this process holds."""
    held = [s[0] for s in split(mesh).addressable_devices_indices_map((count,)).values() if s is not None]
    rows = slice(min(s.start or 0 for s in held), max(count if s.stop is None else s.stop for s in held))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split(mesh), x, (count, *x.shape[1:])), read(rows))


def compile_step(
    function: Callable[..., Any], mesh: Mesh, donate: tuple[int, ...] = (), jit: Callable[..., Any] = jax.jit
) -> Callable[..., Any]:
    """`jit` over the mesh: arguments keep the sharding they come with, results are replicated."""
    return jit(function, out_shardings=replicated(mesh), donate_argnums=donate)


def round_up(batch_size: int, mesh: Mesh) -> int:
    """The smallest multiple of the device count that holds `batch_size` rows."""
    return -(-batch_size // mesh.size) * mesh.size
