"""A custom call over several devices: under `jit`, each device calls it for its own part of the batch."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.custom_batching import sequential_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ncjax.core.types import Array

BATCH = "n"  # the one axis that is split
TOLD = "z"  # of one more argument, which is not used, see `_told`


@functools.cache
def _code() -> bytes:
    return Path(__file__).read_bytes()


@functools.cache
def _told(settings: Hashable) -> np.ndarray:
    """The settings and this file, hashed: an argument by which kept programs are told apart.

    XLA splits the call long after it has been traced, by a function whose address is all that the program holds of it. Kept
    on disk without that address, programs would be one that differ in nothing else, as in an activation or a padding.
    """
    digest = hashlib.sha256(repr(settings).encode() + _code()).digest()
    return np.frombuffer(digest, np.int32)


@functools.cache
def split(call: Callable[..., Array], axes: str) -> Callable[..., Array]:
    """`call(settings, like, *given)`, whose arrays may be split over a mesh along the batch; `vmap` runs it in turns.

    Args:
      call: what one device does with its part. `settings` hash, and their text says all of them; `like` has the result's
        shape and type.
      axes: of arguments and result, as in "n h w c, a b i d -> n p q d". A result without `n` is summed over devices.
    """
    operands, result = axes.split(" -> ")
    names = [one.split() for one in operands.split(", ")]
    summed = BATCH not in result.split()
    static = len(names) + 1, len(names) + 2

    def whole(*args: Any) -> Array:
        *given, _, settings, like = args
        return call(settings, like, *given)

    def partition(settings: Any, like: jax.ShapeDtypeStruct, mesh: Mesh, given: Any, out: Any) -> Any:
        over = (*given[0].sharding.spec, None)[0]
        parts = math.prod(mesh.shape[a] for a in ((over,) if isinstance(over, str) else over or ()))
        if given[0].shape[0] % parts:  # every device does the whole
            over, parts = None, 1
        here, everywhere = NamedSharding(mesh, PartitionSpec(over)), NamedSharding(mesh, PartitionSpec())
        own = like if summed else jax.ShapeDtypeStruct((like.shape[0] // parts, *like.shape[1:]), like.dtype)

        def part(*args: Array) -> Array:
            found = call(settings, own, *args[:-1])
            return jax.lax.psum(found, over) if summed and over else found

        wanted = (*(here if BATCH in n else everywhere for n in names), everywhere)
        return mesh, part, everywhere if summed else here, wanted

    mapped = custom_partitioning(whole, static_argnums=static)
    others = dict.fromkeys(name for one in [*names, [TOLD], result.split()] for name in one if name != BATCH)
    mapped.def_partition(
        partition=partition,
        sharding_rule=f"{operands}, {TOLD} -> {result}",
        reduction_factors=(BATCH,) if summed else (),
        need_replication_factors=tuple(others),
    )

    def run(settings: Hashable, like: jax.ShapeDtypeStruct, *given: Array) -> Array:
        return sequential_vmap(lambda *given: mapped(*given, _told(settings), settings, like))(*given)

    return run
