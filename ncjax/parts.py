"""What a pass over a split has seen so far, written down now and then, so that a stopped pass goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ncjax import trees
from ncjax.data import Dataset
from ncjax.types import PyTree

EVERY = 60.0  # seconds between two parts


class Seen(NamedTuple):
    """Of the first batches of a split."""

    batches: int
    sums: PyTree  # running, over all of them
    columns: dict[str, np.ndarray]  # [rows, ...] of those since the last part


class Parts:
    """Files in a folder: `sums.npz`, which is replaced, and `I.npz`, the rows that came between two of them."""

    def __init__(self, folder: Path, every: float | None = None):
        self.folder, self.every = folder, EVERY if every is None else every
        self._count, self._written = 0, time.time()

    def read(self, like: PyTree) -> Seen | None:
        """All that was written, its columns joined; None if there is nothing, or a file that cannot be read.

        Args:
          like: a tree of the running sums' structure.
        """
        try:
            with open(self.folder / "sums.npz", "rb") as raw, np.load(raw) as file:
                arrays = dict(file)
            count, batches = (int(x) for x in arrays.pop("progress"))
            leaves = [arrays[f"{i}"] for i in range(len(arrays))]
            columns: dict[str, list[np.ndarray]] = {}
            for i in range(count):
                with open(self.folder / f"{i}.npz", "rb") as raw, np.load(raw) as file:
                    for name, rows in file.items():
                        columns.setdefault(name, []).append(rows)
            sums = jax.tree.unflatten(jax.tree.structure(like), leaves)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        self._count = count
        return Seen(batches, sums, {name: np.concatenate(rows) for name, rows in columns.items()})

    def due(self) -> bool:
        """Whether it is time for another part."""
        return time.time() - self._written >= self.every

    def write(self, seen: Seen) -> None:
        """Adds a part; whatever happens meanwhile, the folder holds the state before or the one after."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._replace(f"{self._count}.npz", seen.columns)
        self._count, self._written = self._count + 1, time.time()
        leaves = {f"{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(seen.sums))}
        self._replace("sums.npz", {**leaves, "progress": np.array([self._count, seen.batches])})

    def _replace(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        part = self.folder / f"{name}.part"
        with open(part, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.folder / name)


@contextlib.contextmanager
def kept(folder: Path, variables: PyTree, dataset: Dataset, **options: Any) -> Iterator[Callable[[str], Parts | None]]:
    """`split -> Parts` below `folder`, for a network, a data set and `options`; gone once what happens inside ended well.

    On several hosts, which would have to agree on what was written, None.
    """
    key = (trees.digest(variables), dataset.identity(), sorted(options.items()))
    own = folder / "parts" / hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    yield lambda split: Parts(own / split) if jax.process_count() == 1 else None
    shutil.rmtree(own, ignore_errors=True)
    with contextlib.suppress(OSError):  # another key's
        own.parent.rmdir()
