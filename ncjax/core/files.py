"""Files: written whole or not at all, read whole or refused in one line."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ncjax.core.errors import UserError


@contextlib.contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """A name beside `path`, nobody else's, for what takes its place in one step; gone where that fails."""
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write bytes to, which takes the place of `path` in one step once it is on the disk."""
    with in_place_of(path) as part, open(part, "xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Replaces a file in one step, in UTF-8; of a name that is no text, what can be written of it."""
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: numbers that are not finite are null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_bytes(path: str | Path) -> bytes:
    """A file's bytes.

    Raises:
      UserError: there is none, it may not be read, or it is a folder, a pipe (which would wait for ever) or a device.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{path} is no regular file")
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, ValueError) as e:
        if isinstance(e, UserError):
            raise
        raise UserError(f"cannot read {path} ({getattr(e, 'strerror', None) or e})") from None


def read_text(path: str | Path) -> str:
    """A file's text.

    Raises:
      UserError: as for `read_bytes`, or it is not UTF-8.
    """
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not text in UTF-8 (byte {e.start} is {e.object[e.start]:#04x})") from None


def from_json(text: str | bytes, source: str | Path) -> Any:
    """What JSON says.

    Raises:
      UserError: it is none; the line names its source.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{source} is not valid JSON (nested too deep)") from None
    except ValueError as e:
        raise UserError(f"{source} is not valid JSON ({e}); it may be truncated") from None


def read_json(path: str | Path) -> Any:
    """What a JSON file says.

    Raises:
      UserError: as for `read_text` and `from_json`.
    """
    return from_json(read_text(path), path)
