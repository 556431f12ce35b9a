"""A frozen prefix runs once: its activations are kept, and what is above it trains on them as if on images.

`build` turns a model and a data set into a shorter model and a data set of activations; training, evaluation and
measurement are the ones they always are. Exact (up to rounding) where the prefix is in evaluation mode and images are
not augmented; with augmentation, a number of views is drawn once and kept. `of_plan` says whether a plan has such a prefix.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ncjax.core import mesh as meshes
from ncjax.core.errors import UserError
from ncjax.core.types import Array, Model, PyTree
from ncjax.core.values import NATURAL, OneOf
from ncjax.data import Batches, Dataset, Split, batches_of
from ncjax.data.batches import Augment
from ncjax.runs.run import Run
from ncjax.training.fit import Training
from ncjax.tuning.plans import Plan

PLACES = ("auto", "device", "host", "disk")


class Prefix(NamedTuple):
    """What is left to run once the prefix has."""

    model: Model  # the blocks from `start` on, taking activations for images
    dataset: Dataset  # activations for images
    views: Split | None  # augmented training activations [N, views, ...], to be trained on through `pick_view`
    where: str  # "device", "host" or "disk"
    nbytes: int
    seconds: float


def tail(model: Model, start: str) -> Model:
    """`model` from block `start` on."""
    blocks = model.blocks[model.blocks.index(start) :]
    # A classifier alone still speaks of the feature it reads.
    names = blocks if model.penultimate in blocks else (model.penultimate, *blocks)

    def apply(variables, images, live=frozenset(), start=start, stop=None, key=None, mask=None):
        return model.apply(variables, images, frozenset(live) & frozenset(blocks), start, stop, key, mask)

    return Model(model.init, apply, names, model.penultimate, model.readout, model.num_classes)


def carry_shape(model: Model, variables: PyTree, image_shape: Sequence[int], start: str) -> tuple[int, ...]:
    """Shape of one image's activation where it enters block `start`."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(lambda v, x: model.apply(v, x, stop=start)[0]["carry"], variables, image).shape[1:]


def pick_view(key: Array, views: Array) -> Array:
    """[B, V, ...] -> [B, ...]: one view of each row, drawn from a key of its own."""
    rows = jnp.arange(views.shape[0])
    drawn = jax.vmap(lambda i: jax.random.randint(jax.random.fold_in(key, i), (), 0, views.shape[1]))(rows)
    return views[rows, drawn]


def _place(where: str, nbytes: int, resident_bytes: int, folder: Path) -> str:
    if where not in PLACES:
        raise UserError(f"cache={where!r}: 'off' or one of {', '.join(PLACES)}")
    if where == "auto":
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
        where = "device" if nbytes <= resident_bytes else "host" if nbytes <= free // 2 else "disk"
    if where == "disk" and shutil.disk_usage(folder).free < nbytes:
        raise UserError(
            f"cache=disk: {folder} lacks the {nbytes / 1e9:.1f} GB that the activations take; free some, or "
            "set cache_dtype=bfloat16 or cache=off"
        )
    return where


@functools.lru_cache(maxsize=64)
def _runner(apply: Callable, start: str, kind: jnp.dtype, mesh: Mesh) -> Callable[[PyTree, Array], Array]:
    """The prefix as a program, the same for every data set."""
    # A compute type of bfloat16 is carried between blocks as it is; the suffix takes it back from float32 without loss.
    return meshes.compile_step(lambda v, x: apply(v, x, stop=start)[0]["carry"].astype(kind), mesh)


def _empty(where: str, shape: tuple[int, ...], dtype: Any, folder: Path) -> np.ndarray:
    if where != "disk":
        return np.empty(shape, dtype)
    handle, name = tempfile.mkstemp(prefix=".prefix-", dir=folder)
    os.close(handle)
    out = np.memmap(name, dtype, "w+", shape=shape)
    with contextlib.suppress(OSError):  # the file is gone with the process, however that ends
        os.unlink(name)
    return out


def build(
    model: Model,
    variables: PyTree,
    dataset: Dataset,
    mesh: Mesh,
    *,
    start: str,
    batch_size: int,
    where: str = "auto",
    dtype: str = "float32",
    views: int = 0,
    augment: Augment | None = None,
    seed: int = 0,
    folder: str | Path = ".",
) -> Prefix:
    """Runs everything below `start` over every split, in evaluation mode.

    Args:
      model, variables, dataset, mesh: what to run, on what.
      start: the first block that does not run.
      batch_size: images a step.
      where: "device", "host", "disk" (a file in `folder` that vanishes with the process), or "auto": the first of them
        that holds it all, by `dataset.resident_bytes` and half of the memory that is free.
      dtype: "float32" or "bfloat16", which halves the memory and rounds activations to 8 bits.
      views: augmented copies of each training image to keep beside the clean one.
      augment: how to augment them.
      seed: of the augmentation.

    Raises:
      UserError: unknown place or type, or a disk without room.
    """
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"cache_dtype={dtype!r}: 'float32' or 'bfloat16'")
    started, folder, kind = time.time(), Path(folder), jnp.dtype(dtype)
    shape = carry_shape(model, variables, dataset.image_shape, start)
    count = sum(len(s.labels) * (1 + views * (name == "train")) for name, s in dataset.splits.items())
    nbytes = count * int(np.prod(shape)) * kind.itemsize
    where = _place(where, nbytes, dataset.resident_bytes, folder)
    run = _runner(model.apply, start, kind, mesh)
    variables = meshes.place(variables, meshes.replicated(mesh))

    def fill(out: np.ndarray, batches: Batches, key: Array) -> None:
        fetch = jax.jit(batches.fetch, out_shardings=meshes.split(mesh))
        for i, item in enumerate(batches.items(np.arange(batches.size))):
            rows = out[i * batches.batch_size : (i + 1) * batches.batch_size]
            batch = fetch(batches.arrays, item, jax.random.fold_in(key, i))
            rows[:] = np.asarray(run(variables, batch.image))[: len(rows)]

    def settled(out: np.ndarray) -> Any:
        return meshes.place(out, meshes.replicated(mesh)) if where == "device" else out

    splits = {}
    for name, split in dataset.splits.items():
        out = _empty(where, (len(split.labels), *shape), kind, folder)
        fill(out, batches_of(split, dataset, mesh, batch_size=batch_size), jax.random.key(seed))
        splits[name] = Split(settled(out), split.labels)
    augmented = None
    if views:
        train = dataset.splits["train"]
        out = _empty(where, (len(train.labels), views, *shape), kind, folder)
        batches = batches_of(train, dataset, mesh, batch_size=batch_size, augment=augment)
        for view in range(views):
            fill(out[:, view], batches, jax.random.fold_in(jax.random.key(seed), 1 + view))
        augmented = Split(settled(out), train.labels)
    resident = nbytes if where == "device" else 0
    return Prefix(
        tail(model, start),
        dataset._replace(splits=splits, image_shape=shape, resident_bytes=resident),
        augmented,
        where,
        nbytes,
        time.time() - started,
    )


class Cache(NamedTuple):
    """Whether the frozen prefix runs once, its activations kept.

    Args:
      cache: "auto" (where that is exact), "off", or where they are kept: "device", "host", "disk".
      cache_dtype: of the kept activations, "float32" or "bfloat16".
      cache_views: with `augment`, augmented views of each training image to draw once and keep.
    """

    cache: Annotated[str, OneOf("auto", "off", "device", "host", "disk")] = "auto"
    cache_dtype: Annotated[str, OneOf("float32", "bfloat16")] = "float32"
    cache_views: Annotated[int, NATURAL] = 0


def of_plan(run: Run, plan: Plan, dataset: Dataset, mesh: Mesh, options: Cache, training: Training) -> Prefix | None:
    """The frozen prefix's activations, or None where every step must run the whole network."""
    first, (cache, cache_dtype, cache_views), augment = plan.model.blocks[0], options, training.augment
    if cache_views and augment is None:
        raise UserError(f"cache_views={cache_views} keeps augmented views; say which with augment=augment.crop_flip")
    if augment is not None and not cache_views and cache not in ("off", "auto"):
        raise UserError(
            f"cache={cache}: augment={augment} would be drawn once and for all; set cache_views=4, say, to "
            "keep that many views of each image, or cache=off"
        )
    if cache == "off" or (augment is not None and not cache_views):
        return None
    if training.sees_network():
        if cache != "auto":
            raise UserError(f"cache={cache}: loss={training.loss} runs the whole network as it likes; set cache=auto")
        return None
    if plan.start == first:
        if cache != "auto":
            raise UserError(f"cache={cache}: {first} is trained, so that no prefix is frozen; set cache=auto")
        return None
    kept = build(
        plan.model,
        plan.variables,
        dataset,
        mesh,
        start=plan.start,
        batch_size=training.batch_size,
        where=cache,
        dtype=cache_dtype,
        views=cache_views,
        seed=training.seed,
        folder=run.workdir,
        augment=training.augmentation(),
    )
    run.say(
        f"everything below {plan.start} ran once, in {kept.seconds:.1f} s; {kept.nbytes / 1e6:,.0f} MB of activations "
        f"in {cache_dtype} are kept ({kept.where})"
    )
    return kept
