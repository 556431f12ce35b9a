"""Checkpoints through orbax: a `last` and a `best` state per run."""

from __future__ import annotations

import errno
import logging
import shutil
import time
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ncjax.core import hosts, trees
from ncjax.core.errors import UserError
from ncjax.core.files import read_json, to_json, write_text
from ncjax.core.types import PyTree

SPARE_BYTES = 4 << 20  # what a save needs beyond the arrays: metadata, and the table it is written through

# orbax narrates every save and warns of what is already handled here.
logging.getLogger("absl").setLevel(logging.ERROR)


def _manager(directory: Path, create: bool) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=1, create=create, enable_async_checkpointing=False)
    return ocp.CheckpointManager(directory.resolve(), options=options)


def _sums(step: Path) -> dict[str, list[int]]:
    """{file: [bytes, CRC-32]} of a stored step."""
    found = {}
    for path in sorted(p for p in step.rglob("*") if p.is_file()):
        crc, size = 0, 0
        with open(path, "rb") as file:
            while part := file.read(1 << 22):
                crc, size = zlib.crc32(part, crc), size + len(part)
        found[str(path.relative_to(step))] = [size, crc]
    return found


def _seal(folder: Path, step: int) -> None:
    """Writes down what the files of a stored step are, so that damage is found, and named, before they are read."""
    write_text(folder / f"crc32_{step}.json", to_json(_sums(folder / str(step))))
    for old in folder.glob("crc32_*.json"):
        if old.name != f"crc32_{step}.json":
            old.unlink()


def _damage(folder: Path) -> str | None:
    """What is wrong with a stored state; None where nothing is, or where nothing was written down of it."""
    seals = [p for p in folder.glob("crc32_*.json") if (folder / p.stem.removeprefix("crc32_")).is_dir()]
    for seal in seals:
        step = folder / seal.stem.removeprefix("crc32_")
        try:
            wanted = read_json(seal)
        except UserError as e:
            return str(e)
        found = _sums(step)
        for name in sorted(wanted) if isinstance(wanted, dict) else ():
            if name not in found:
                return f"{step / name} is missing"
            if found[name] != wanted[name]:
                return f"{step / name} is not what was written: {found[name][0]} bytes of {wanted[name][0]}, or others"
    steps = [p for p in folder.iterdir() if p.name.isdigit()]  # one without a seal was stored just before a kill
    if not steps and any(folder.glob("crc32_*.json")):
        return f"the folder of its step in {folder} is missing"
    return None


class Store:
    """The checkpoints of one run, below `directory`. Saves are atomic: a kill leaves the previous one.

    Leaves whose slash-joined path is in `unsaved` are those of another checkpoint, which `restore` finds in `like`.
    """

    def __init__(self, directory: str | Path, unsaved: frozenset[str] = frozenset()):
        self.directory, self.unsaved = Path(directory), unsaved
        self.seconds = 0.0  # that saving took
        self._managers: dict[str, ocp.CheckpointManager] = {}

    def _get(self, which: str) -> ocp.CheckpointManager:
        if which not in self._managers:
            self._managers[which] = _manager(self.directory / which, create=True)
        return self._managers[which]

    def save(self, which: str, step: int, tree: PyTree) -> None:
        """Saves `tree` as "last" or "best", replacing the previous one; a step that is stored already is left alone.

        Raises:
          OSError: the disk has no room; asked beforehand, because a save that fails half-way fails noisily.
        """
        started = time.perf_counter()
        self._save(which, step, tree)
        self.seconds += time.perf_counter() - started

    def _save(self, which: str, step: int, tree: PyTree) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        saved = {path: leaf for path, leaf in trees.paths(tree).items() if path not in self.unsaved}
        if shutil.disk_usage(self.directory).free < trees.nbytes(saved) + SPARE_BYTES:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.directory))
        manager = self._get(which)
        if manager.latest_step() != step:  # else a resumed run reaches a step that is on disk, with the same state
            manager.save(step, args=ocp.args.StandardSave(saved))
            manager.wait_until_finished()
        if jax.process_index() == 0 and not (self.directory / which / f"crc32_{step}.json").exists():
            _seal(self.directory / which, step)
        hosts.barrier()  # no process ends before it is sealed

    def latest(self, which: str) -> int | None:
        """Step of the stored state, or None."""
        return self._get(which).latest_step() if (self.directory / which).is_dir() else None

    def restore(self, which: str, like: PyTree) -> PyTree:
        """The stored state in the structure, dtypes and shardings of `like`.

        Raises:
          UserError: nothing stored, not readable, or another tree than `like`.
        """
        wanted = trees.paths(like)
        flat = {path: wanted[path] for path in self.unsaved}
        flat |= read(self.directory, which, shardings={p: x.sharding for p, x in wanted.items()})
        difference = trees.differences(flat, wanted)
        if difference:
            raise UserError(f"checkpoint {self.directory / which} is of another run: {difference}")
        return jax.tree.unflatten(jax.tree.structure(like), [flat[p] for p in wanted])

    def close(self) -> None:
        """Releases orbax's managers."""
        for manager in self._managers.values():
            manager.close()
        self._managers.clear()


class Memory:
    """A store for runs that are over in seconds: keeps the best state on the host, resumes nothing."""

    def __init__(self):
        self.best: PyTree = None

    def latest(self, which: str) -> None:
        """Nothing: such a run starts afresh."""

    def save(self, which: str, step: int, tree: PyTree) -> None:
        """Keeps a copy of the best state (the step donates its own)."""
        if which == "best":
            self.best = jax.tree.map(np.array, tree)


def _other(directory: Path, which: str) -> str:
    """Offers the other checkpoint that is kept, where that one is whole."""
    other = "best" if which == "last" else "last"
    if not (directory / other).is_dir() or _damage(directory / other) is not None:
        return ""
    return f"; the other that is kept is whole: which={other} reads it, and a copy as {directory / which} is gone on from"


def read(directory: Path, which: str, shardings: dict[str, Any] | None = None) -> dict[str, jax.Array]:
    """A stored state as {slash-joined path: array}.

    Raises:
      UserError: there is none, or it does not read (truncated, deleted in part).
    """
    folder = directory / which
    if not folder.is_dir():
        raise UserError(f"no {which!r} checkpoint in {directory}")
    if (wrong := _damage(folder)) is not None:
        raise UserError(f"checkpoint {folder} is damaged and cannot be read ({wrong}){_other(directory, which)}")
    manager = _manager(folder, create=False)
    try:
        step = manager.latest_step()
        if step is None:
            raise UserError(f"no {which!r} checkpoint in {directory}")
        default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        found = ocp.StandardCheckpointer().metadata(folder.resolve() / str(step) / "default").item_metadata
        metadata = found.tree  # pyright: ignore[reportOptionalMemberAccess] - damaged ones are caught below
        target = {
            path: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=(shardings or {}).get(path, default))
            for path, m in metadata.items()
        }
        return dict(manager.restore(step, args=ocp.args.StandardRestore(target)))
    except UserError:
        raise
    except Exception as e:  # orbax and tensorstore raise many kinds for a damaged directory
        reason = (str(e).strip() or type(e).__name__).splitlines()[0][:160]
        raise UserError(f"checkpoint {folder} is damaged and cannot be read ({reason}){_other(directory, which)}") from None
    finally:
        manager.close()
