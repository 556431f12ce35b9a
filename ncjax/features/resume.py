"""What a pass over a split has seen so far, written down now and then, so that a stopped pass goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import ncjax
from ncjax.core import trees
from ncjax.core.files import replacing
from ncjax.core.types import PyTree
from ncjax.data import Dataset

EVERY = 60.0  # seconds between two parts


class Seen(NamedTuple):
    """Of the first rows of a split."""

    sums: PyTree  # running, over all of them
    columns: dict[str, np.ndarray]  # when written, what came since the last part; the last is [rows, ...]


class Parts:
    """Files in a folder: `sums.npz`, which is replaced, and `I.npz`, the rows that came between two of them.

    Written and read by one process; what does not fit together, as after two at once, counts as nothing.

    Args:
      folder: where; made when needed.
      say: told if it cannot be written, which ends the writing and nothing else.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print):
        self.folder, self.say = folder, say
        self.count = self.rows = 0  # of files, and of rows in them
        self.found = 0  # rows that an earlier run had written
        self._written, self._failed = time.time(), False

    def read(self, like: PyTree, names: Sequence[str]) -> Seen | None:
        """All that was written, its columns joined; None if there is nothing, or not what is asked for.

        Args:
          like: a tree of the running sums' structure, shapes and types.
          names: of the columns; the last has an entry a row.
        """
        try:
            arrays = _load(self.folder / "sums.npz")
            count, total = (int(x) for x in arrays.pop("progress"))
            sums = jax.tree.map(lambda i, x: _like(arrays[f"{i}"], x), _numbered(like), like)
            files = [_load(self.folder / f"{i}.npz") for i in range(count)]
            columns = {name: np.concatenate([file[name] for file in files]) for name in names}
            if len(columns[names[-1]]) != total:
                raise ValueError("rows of another writing")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            shutil.rmtree(self.folder, ignore_errors=True)
            return None
        self.count, self.rows, self.found = count, total, total
        return Seen(sums, columns)

    def due(self) -> bool:
        """Whether it is time for another part."""
        return not self._failed and time.time() - self._written >= EVERY

    def write(self, seen: Seen) -> None:
        """Adds a part: first its rows, then the sums that count them."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _save(self.folder / f"{self.count}.npz", seen.columns)
            rows = self.rows + len(list(seen.columns.values())[-1])
            leaves = {f"{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(seen.sums))}
            _save(self.folder / "sums.npz", {**leaves, "progress": np.array([self.count + 1, rows])})
            self.count, self.rows, self._written = self.count + 1, rows, time.time()
        except OSError as e:
            self._failed = True
            shutil.rmtree(self.folder, ignore_errors=True)
            self.say(f"what was seen cannot be written down ({e.strerror}): a stop will cost it")


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


def _load(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as raw, np.load(raw) as file:
        return dict(file)


def _numbered(tree: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, range(len(leaves)))


def _like(found: np.ndarray, wanted: Any) -> np.ndarray:
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
        raise ValueError("a sum of another shape")
    return found


@contextlib.contextmanager
def kept(
    workdir: Path, say: Callable[[str], None], variables: PyTree, dataset: Dataset, **options: Any
) -> Iterator[Callable[..., Parts | None]]:
    """`(split, layers) -> Parts` in a run's folder; gone once what happens inside has ended well.

    They are found again for the same network, data set and `options`, by the same version. On several hosts, which would
    have to agree on what was written, None.
    """
    if jax.process_count() > 1:
        yield lambda split, layers: None
        return
    folder = workdir / "parts"
    options |= {"variables": trees.digest(variables), "data": dataset.identity(), "version": ncjax.__version__}

    def of(split: str, layers: Sequence[str]) -> Parts:
        key = repr((sorted(options.items()), tuple(layers)))
        return Parts(folder / hashlib.sha256(key.encode()).hexdigest()[:16] / split, say)

    yield of
    shutil.rmtree(folder, ignore_errors=True)
