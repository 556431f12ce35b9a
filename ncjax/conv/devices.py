"""A custom call over several devices: each device calls it for its own part of the batch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import sequential_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ncjax.core.types import Array

BATCH = "n"  # the one axis that is split


@functools.cache
def split(call: Callable[..., Array], axes: str) -> Callable[..., Array]:
    """`call(settings, like, *given)`, whose arrays may be split over a mesh along the batch; `vmap` runs it in turns.

    Args:
      call: what one device does with its part. `settings` hash; `like` has the result's shape and type.
      axes: of arguments and result, as in "n h w c, a b i d -> n p q d". A result without `n` is summed over devices.
    """
    operands, result = axes.split(" -> ")
    names = [one.split() for one in operands.split(", ")]
    summed = BATCH not in result.split()
    static = len(names), len(names) + 1

    def whole(*args: Any) -> Array:
        *given, settings, like = args
        return call(settings, like, *given)

    def partition(settings: Any, like: jax.ShapeDtypeStruct, mesh: Mesh, given: Any, out: Any) -> Any:
        over = (*given[0].sharding.spec, None)[0]
        parts = math.prod(mesh.shape[a] for a in ((over,) if isinstance(over, str) else over or ()))
        over = over if given[0].shape[0] % parts == 0 else None  # else every device does the whole
        parts = parts if over else 1
        here, everywhere = NamedSharding(mesh, PartitionSpec(over)), NamedSharding(mesh, PartitionSpec())
        own = like if summed else jax.ShapeDtypeStruct((like.shape[0] // parts, *like.shape[1:]), like.dtype)

        def part(*given: Array) -> Array:
            found = call(settings, own, *given)
            return jax.lax.psum(found, over) if summed and over else found

        return mesh, part, everywhere if summed else here, tuple(here if BATCH in n else everywhere for n in names)

    mapped = custom_partitioning(whole, static_argnums=static)
    others = dict.fromkeys(name for one in [*names, result.split()] for name in one if name != BATCH)
    mapped.def_partition(
        partition=partition,
        sharding_rule=axes,
        reduction_factors=(BATCH,) if summed else (),
        need_replication_factors=tuple(others),
    )

    def run(settings: Any, like: jax.ShapeDtypeStruct, *given: Array) -> Array:
        return sequential_vmap(lambda *given: mapped(*given, settings, like))(*given)

    return run
