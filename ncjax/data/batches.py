"""From a split to batches on the mesh. Small sets live on the device; large ones stream with prefetch."""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ncjax.core import memory
from ncjax.core import mesh as meshes
from ncjax.core.errors import UserError
from ncjax.core.types import Array, Batch, PyTree
from ncjax.data.images import Lazy, take
from ncjax.data.load import Dataset
from ncjax.data.splits import Split

Augment = Callable[[Array, Array], Array]  # (key, images) -> images

PREFETCH = 2  # batches decoded ahead of the step that needs them


class Batches(NamedTuple):
    """A split that can be asked for batches.

    `items(order)` yields what a step needs to know of each batch; `fetch(arrays, item, key) -> Batch` is pure and runs
    inside the step. Every example of `order` is in exactly one batch, and filler rows are masked.
    """

    arrays: PyTree  # on the device; empty for streamed sets. Passed to the step, never closed over.
    fetch: Callable[[PyTree, PyTree, Array | None], Batch]
    items: Callable[[np.ndarray], Iterator[PyTree]]
    size: int  # of an epoch
    examples: int  # of the split; another number than `size` where an epoch is not one pass
    batch_size: int
    ragged: int  # examples of a full batch, every view counted, where some batch has filler rows; else 0
    views: int

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-self.size // self.batch_size)


def _rows(order: np.ndarray, start: int, batch_size: int, padded: int) -> tuple[np.ndarray, np.ndarray]:
    rows = order[start : start + batch_size]
    mask = np.zeros(padded, np.float32)
    mask[: len(rows)] = 1
    return np.concatenate([rows, np.zeros(padded - len(rows), rows.dtype)]).astype(np.int32), mask


def _filled(images: np.ndarray | Lazy, rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The images of rows, zeros for filler, which need not be decoded."""
    real = max(1, int(mask.sum()))  # filler comes last
    found = take(images, rows[:real])
    return (
        np.concatenate([found, np.zeros((len(rows) - real, *found.shape[1:]), found.dtype)]) if real < len(rows) else found
    )


def _prefetched(make: Callable[[Any], PyTree], tasks: list[Any]) -> Iterator[PyTree]:
    """Results of `make` over `tasks`, `PREFETCH` of them in the making ahead; its exceptions come out here."""
    ahead: collections.deque[Future] = collections.deque()
    with ThreadPoolExecutor(PREFETCH, thread_name_prefix="prefetch") as pool:
        try:
            for task in tasks:
                ahead.append(pool.submit(make, task))
                if len(ahead) > PREFETCH:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for task in ahead:
                task.cancel()


def batches_of(
    split: Split,
    dataset: Dataset,
    mesh: Mesh,
    *,
    batch_size: int,
    augment: Augment | None = None,
    views: int = 1,
) -> Batches:
    """Batches of a split.

    Args:
      split: what to iterate over. Floating-point images are activations of a network's prefix: they are not normalised.
      dataset: gives the normalisation.
      mesh: devices over which rows are split.
      batch_size: examples a step; padded up to a multiple of the device count.
      augment: applied to raw pixels inside the step, with a fresh key for each view.
      views: augmented copies of each image, stacked along the batch axis.

    Raises:
      UserError: batch_size below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: at least 1")
    padded = meshes.round_up(batch_size, mesh)
    shape = dataset.image_shape if isinstance(split.images, Lazy) else split.images.shape[1:]
    memory.room(
        4 * views * padded * math.prod(shape), f"batch_size={batch_size}: a batch of images alone", "choose a smaller one"
    )
    size, images_of = len(split.labels), split.images
    resident = not isinstance(images_of, Lazy) and images_of.nbytes <= dataset.resident_bytes
    pixels = isinstance(images_of, Lazy) or jnp.issubdtype(images_of.dtype, jnp.integer)
    fetch = _fetch(resident, (dataset.mean, dataset.std) if pixels else None, augment, views)
    arrays = meshes.place((split.images, split.labels), meshes.replicated(mesh)) if resident else ()

    def read(task: tuple[np.ndarray, np.ndarray]) -> PyTree:
        rows, mask = task
        return meshes.place_rows(
            mesh, padded, lambda s: (_filled(split.images, rows[s], mask[s]), split.labels[rows[s]], mask[s])
        )

    def items(order: np.ndarray) -> Iterator[PyTree]:
        tasks = [_rows(order, start, batch_size, padded) for start in range(0, len(order), batch_size)]
        return (meshes.place(task, meshes.split(mesh)) for task in tasks) if resident else _prefetched(read, tasks)

    ragged = views * min(batch_size, size) if size % batch_size or padded != batch_size else 0
    return Batches(
        arrays=arrays, fetch=fetch, items=items, size=size, examples=size, batch_size=batch_size, ragged=ragged, views=views
    )


@functools.lru_cache(maxsize=32)
def _fetch(
    resident: bool, moments: tuple[tuple[float, ...], tuple[float, ...]] | None, augment: Augment | None, views: int
) -> Callable[..., Batch]:
    """`Batches.fetch`; the same function for all splits that are treated alike, so that its programs are shared.

    Args:
      resident: whether a split's arrays are on the device, and an item says which rows; else an item is the rows.
      moments: (mean, std) by which pixels are normalised; None for activations, which are not.
      augment, views: as for `batches_of`.
    """
    mean, std = (np.asarray(x, np.float32) for x in moments or ((0.0,), (1.0,)))
    scale, shift = 1 / (255 * std), mean / std

    def fetch(arrays: PyTree, item: PyTree, key: Array | None) -> Batch:
        if resident:
            (images, labels), (rows, mask) = arrays, item
            image, label = images[rows], labels[rows]
        else:
            image, label, mask = item
        copies = [
            image if augment is None else augment(jax.random.fold_in(jnp.asarray(key), v), image) for v in range(views)
        ]
        image, label, mask = jnp.concatenate(copies).astype(jnp.float32), jnp.tile(label, views), jnp.tile(mask, views)
        if moments is None:
            return Batch(image, label, mask)
        ends = (jnp.broadcast_to(end, (len(label), 1, 1, image.shape[-1])) for end in (-shift, 255 * scale - shift))
        return Batch(image * scale - shift, label, mask, *ends)

    return fetch


def repeated(batches: Batches, steps: int, mesh: Mesh) -> Batches:
    """The same examples in epochs of `steps` full batches, whatever their number: no filler rows.

    Epochs cut one sequence of passes into equal parts (`training.loop.order_of`): every example is seen equally
    often, up to once.
    """
    return batches._replace(
        size=steps * batches.batch_size,
        ragged=batches.views * batches.batch_size if meshes.round_up(batches.batch_size, mesh) != batches.batch_size else 0,
    )
