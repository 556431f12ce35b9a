"""PyTorch's files of weights (`.pth`, `.pt`, `.bin`; zip and legacy) without PyTorch, and without running what is in them.

A pickle is a program. Here it may build dictionaries, tuples, numbers, strings and tensors; whatever else it asks for is
refused by name, before anything of it runs.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from ncjax.core.errors import UserError

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_NESTED = ("state_dict", "model", "model_state_dict", "model_state", "net", "state_dict_ema")
_MAGIC = 0x1950A86A20F9469CFC6C


class _Storage(NamedTuple):
    key: str
    dtype: Any
    count: int


class _Tensor(NamedTuple):
    """A tensor as the pickle describes it; its numbers are read later."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Parts(NamedTuple):
    """What one kind of file holds: the unpickled object, and where a storage's bytes are."""

    tree: Any
    read: Callable[[_Storage], bytes]


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without storage")
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise pickle.UnpicklingError(f"a tensor of size {size} and stride {stride}")
    if math.prod(size) > storage.count:  # of stride 0: a small file would fill the memory
        raise pickle.UnpicklingError("a tensor larger than its storage")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.count:  # or it would show memory that is not its own
        raise pickle.UnpicklingError("a tensor that reaches beyond its storage")
    return _Tensor(storage, offset, tuple(size), tuple(stride))


class _Unpickler(pickle.Unpickler):
    """Knows tensors and what holds them; refuses all else."""

    _known = {
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        ("torch.serialization", "_get_layout"): lambda name: name,
        ("torch", "Size"): tuple,
        ("collections", "OrderedDict"): collections.OrderedDict,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name that the pickle asks for."""
        if (module, name) in self._known:
            return self._known[module, name]
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return name
        raise _RefusedError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        """A reference to a storage."""
        kind, dtype, key, _, count, *_ = pid
        if kind != "storage" or dtype not in _DTYPES or not isinstance(count, int):
            raise pickle.UnpicklingError(f"a reference to {kind} {dtype}")
        return _Storage(str(key), np.dtype(_DTYPES[dtype]), count)


class _RefusedError(Exception):
    """A pickle asked for something other than tensors."""


def _zipped(file: BinaryIO) -> _Parts:
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise ValueError("a compressed zip file, which PyTorch does not write")
    index = next((n for n in names if n.endswith("/data.pkl")), None)
    if index is None:
        raise ValueError("a zip file without data.pkl")
    root = index.removesuffix("data.pkl")
    if any(n.startswith(root + "code/") for n in names):
        raise _RefusedError("TorchScript code")
    order = archive.read(root + "byteorder").strip() if root + "byteorder" in names else b"little"
    if order != b"little":
        raise ValueError(f"byte order {order.decode()}")
    tree = _Unpickler(io.BytesIO(archive.read(index))).load()
    return _Parts(tree, lambda storage: archive.read(f"{root}data/{storage.key}"))


def _legacy(file: BinaryIO) -> _Parts:
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError("no file of PyTorch's")
    _Unpickler(file).load()  # protocol
    system = _Unpickler(file).load()
    if not system.get("little_endian", True):
        raise ValueError("byte order big")
    storages: dict[str, _Storage] = {}

    class Noting(_Unpickler):
        def persistent_load(self, pid: Any) -> _Storage:
            found = super().persistent_load(pid)
            return storages.setdefault(found.key, found)

    tree = Noting(file).load()
    held: dict[str, bytes] = {}
    for key in _Unpickler(file).load():
        count = struct.unpack("<q", file.read(8))[0]
        storage = storages[str(key)]
        if count != storage.count:
            raise ValueError(f"storage {key} has {count} numbers instead of {storage.count}")
        held[storage.key] = file.read(count * storage.dtype.itemsize)
    return _Parts(tree, lambda storage: held[storage.key])


def _state(tree: Any) -> dict[str, _Tensor]:
    """The mapping of names to tensors, wherever a training script put it."""
    for _ in range(3):
        if not isinstance(tree, dict):
            break
        inner = next((tree[k] for k in _NESTED if isinstance(tree.get(k), dict)), None)
        if inner is None:
            break
        tree = inner
    if not isinstance(tree, dict):
        raise ValueError(f"it holds a {type(tree).__name__}, not a dictionary of tensors")
    return {str(k): v for k, v in tree.items() if isinstance(v, _Tensor)}


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by name from a `.pth`, `.pt` or `.bin` file, in the types they were stored in.

    A state dict inside a training checkpoint ("state_dict", "model", ...) is found.

    Raises:
      UserError: damaged, no dictionary of tensors, or a pickle that asks for more than tensors.
      FileNotFoundError: no such file.
    """
    with open(path, "rb") as file:
        try:
            zipped = zipfile.is_zipfile(file)
            file.seek(0)
            parts = _zipped(file) if zipped else _legacy(file)
            state, held = _state(parts.tree), {}
            arrays = {}
            for name, tensor in state.items():
                storage = tensor.storage
                if storage not in held:  # each claim of size and type is checked, also a second one of the same storage
                    raw = parts.read(storage)
                    if len(raw) < storage.count * storage.dtype.itemsize:
                        raise EOFError(f"storage {storage.key} is cut short")
                    held[storage] = np.frombuffer(raw, storage.dtype, storage.count)
                flat = held[storage][tensor.offset :]
                strides = [s * storage.dtype.itemsize for s in tensor.stride]
                arrays[name] = np.lib.stride_tricks.as_strided(flat, tensor.size, strides).copy()
        except _RefusedError as e:
            raise UserError(
                f"{path} asks for {e}, which is more than tensors: refused, nothing was run. Save its tensors "
                "alone, as .safetensors or with torch.save(model.state_dict(), ...)"
            ) from None
        except (
            pickle.UnpicklingError,
            zipfile.BadZipFile,
            ValueError,
            EOFError,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            RuntimeError,
            MemoryError,
            struct.error,
            OverflowError,
        ) as e:
            raise UserError(f"{path} is damaged or no PyTorch file ({str(e)[:160]})") from None
    if not arrays:
        raise UserError(f"{path} holds no tensors by name")
    return arrays
