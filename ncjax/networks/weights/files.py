"""Single files of arrays by name. Nothing in a file is executed."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ncjax.core.errors import UserError
from ncjax.core.files import in_place_of
from ncjax.networks.weights import torch_files

TORCH = (".pth", ".pt", ".bin")
SUFFIXES = (".safetensors", ".npz", *TORCH)
MARK = {"written_by": "ncjax"}  # among the text of what `write` wrote


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays by name, text by key) of a `.safetensors`, `.npz`, `.pth`, `.pt` or `.bin` file.

    Raises:
      UserError: no such file, another kind of file, a damaged one, or a pickle that asks for more than tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}, {}
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        if path.suffix in TORCH:
            return torch_files.read(path), {}
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except UserError:
        raise
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error, SafetensorError) as e:
        reason = next(iter(str(e).splitlines()), type(e).__name__)[:160]
        raise UserError(f"{path} is damaged or holds numbers of an unknown type, and cannot be read ({reason})") from None
    raise UserError(f"{path}: weights are read from .safetensors, .npz, {', '.join(TORCH)} files")


def write(path: str | Path, arrays: dict[str, np.ndarray], text: dict[str, str]) -> None:
    """Writes a `.safetensors` file in one step."""
    with in_place_of(Path(path)) as part:
        part.touch()
        mode = part.stat().st_mode  # as other files get it; safetensors writes for its owner alone
        save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, part, {**text, **MARK})
        part.chmod(mode)


def is_own(path: str | Path) -> bool:
    """Whether `write` wrote a file; only its header is read."""
    try:
        with safe_open(path, framework="np") as file:
            return MARK.items() <= (file.metadata() or {}).items()
    except (OSError, SafetensorError):
        return False


def sha256(path: str | Path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
