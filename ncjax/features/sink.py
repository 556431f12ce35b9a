"""Where a pass over a split puts what it sees: features to the host, those of a sample on the devices until it ends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from ncjax.core import mesh as meshes
from ncjax.core.types import Array, PyTree
from ncjax.data.batches import Batches
from ncjax.features.resume import Parts, Seen
from ncjax.nc.null import choose_rows

LABELS = "labels"  # of the rows, beside layers' features


@functools.partial(jax.jit, donate_argnums=0)
def _put(kept: dict[str, Array], features: dict[str, Array], rows: Array, places: Array) -> dict[str, Array]:
    return {name: x.at[places].set(features[name][rows].astype(x.dtype), mode="drop") for name, x in kept.items()}


class Sample:
    """Features of some examples (`ncjax.nc.null.choose_rows`) at some layers, from which floors are drawn.

    They stay on the devices, [M, D] a layer, until the pass has ended: a GPU would wait for every small copy to the host.

    Args:
      dims: widths of the layers.
      batches: the split.
      num_classes: of the model.
      mesh: devices.
    """

    def __init__(self, dims: dict[str, int], batches: Batches, num_classes: int, mesh: Mesh):
        self.names, self.mesh = tuple(dims), mesh
        chosen = choose_rows(batches.size, num_classes) if dims else np.zeros(0, int)
        owner, place = np.divmod(chosen, batches.batch_size)
        counts = np.bincount(owner, minlength=batches.steps)
        self.ends = np.cumsum(counts)  # of each batch's part of the sample
        shape = (batches.steps, -(-counts.max(initial=0) // 64) * 64)  # few widths, so that few programs are compiled
        self._rows, self._places = np.zeros(shape, np.int32), np.full(shape, len(chosen), np.int32)  # beyond: dropped
        slot = np.arange(len(chosen)) - np.repeat(self.ends - counts, counts)
        self._rows[owner, slot], self._places[owner, slot] = place, np.arange(len(chosen))
        self._kept = self._placed({name: np.zeros((len(chosen), width), np.float32) for name, width in dims.items()})

    def _placed(self, arrays: dict[str, np.ndarray]) -> dict[str, Array]:
        return meshes.place(arrays, meshes.replicated(self.mesh))

    def add(self, step: int, features: dict[str, Array]) -> None:
        """Takes from a batch's features those of its examples that were chosen."""
        if self._kept:
            self._kept = _put(self._kept, features, self._rows[step], self._places[step])

    def rows(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows of the sample, that have been seen, on the host."""
        return {name: np.asarray(self._kept[name])[start:stop] for name in self.names}

    def restore(self, seen: dict[str, np.ndarray]) -> None:
        """Puts back the rows that an earlier pass had seen."""
        full = {name: np.zeros(x.shape, x.dtype) for name, x in self._kept.items()}
        for name, x in full.items():
            x[: len(seen[name])] = seen[name]
        self._kept = self._placed(full)


class Sink:
    """Takes features to the host, one batch behind the device; written down now and then where there are `parts`."""

    def __init__(
        self,
        names: Sequence[str],
        batches: Batches,
        sample: Sample,
        tick: Callable[[int, int], None] | None,
        parts: Parts | None,
    ):
        self.batches, self.sample, self.tick, self.parts = batches, sample, tick, parts
        self.arrived: dict[str, list[np.ndarray]] = {name: [] for name in names}
        self.done = 0  # rows that have arrived
        self._written = self._written_rows = 0  # lists, and rows of the sample, that have been written down
        self._behind: dict[str, Array] | None = None

    def resume(self, start: PyTree) -> PyTree:
        """The running sums of an earlier pass that was stopped, its rows taken over; else `start`."""
        names = (*self.sample.names, *self.arrived)  # labels come last
        before = self.parts.read(start, names) if self.parts is not None else None
        if before is None:
            return start
        self.arrived = {name: [before.columns[name]] for name in self.arrived}
        self.sample.restore({name: before.columns[name] for name in self.sample.names})
        self.done, self._written = len(before.columns[LABELS]), 1
        self._written_rows = self._sampled()
        return before.sums

    def _sampled(self) -> int:
        """Rows of the sample in the batches that have arrived."""
        return int(self.sample.ends[-(-self.done // self.batches.batch_size) - 1]) if self.done else 0

    def add(self, found: dict[str, Array]) -> None:
        """What a batch gave, a row an example; that of the batch before is taken to the host."""
        for x in found.values():
            x.copy_to_host_async()
        self._arrive()
        self._behind = found

    def _arrive(self) -> None:
        if self._behind is None:
            return
        real = min(self.batches.batch_size, self.batches.size - self.done)  # the others are filler
        for name, x in self._behind.items():
            self.arrived[name].append(np.asarray(x)[:real])
        self.done, self._behind = self.done + real, None
        if self.tick is not None:
            self.tick(self.done, self.batches.size)

    def write_if_due(self, sums: PyTree) -> None:
        """Writes down what was seen so far, once a minute."""
        if self._behind is not None and self.parts is not None and self.parts.due():
            self._arrive()
            self._write(sums)

    def _write(self, sums: PyTree) -> None:
        columns = self.sample.rows(self._written_rows, self._sampled())
        columns |= {name: np.concatenate(x[self._written :]) for name, x in self.arrived.items()}
        self.parts.write(Seen(sums, columns))  # pyright: ignore[reportOptionalMemberAccess] - callers have looked
        self._written, self._written_rows = len(self.arrived[LABELS]), self._sampled()

    def close(self, sums: PyTree) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Everything that has arrived, [N, ...] each, and the sample, [M, ...] each."""
        self._arrive()
        if self.parts is not None and self.parts.count and len(self.arrived[LABELS]) > self._written:
            self._write(sums)  # the next split, or a second pass, may be stopped too
        return {name: np.concatenate(x) for name, x in self.arrived.items()}, self.sample.rows(0, self._sampled())
