"""The JSON files of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ncjax.core.errors import UserError
from ncjax.core.files import replacing

FORMAT = 3  # of config.json and results.json; see CHANGELOG.md for what each changed


def check_format(record: Any, what: str, wanted: int = FORMAT) -> None:
    """Refuses what another version of ncjax wrote.

    Args:
      record: what was read.
      what: its name in the error.
      wanted: the format that is read here.

    Raises:
      UserError: it is of another format.
    """
    found = record.get("format", 1) if isinstance(record, dict) else None
    if found != wanted:
        raise UserError(
            f"{what} is of format {found}, this ncjax reads format {wanted}: use the version that wrote it, or run again"
        )


def write_text(path: Path, text: str) -> None:
    """Replaces a file in one step."""
    with replacing(path) as file:
        file.write(text.encode())


def read_json(path: Path) -> Any:
    """A JSON file, or a one-line error naming it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except ValueError as e:
        raise UserError(f"{path} is not valid JSON ({e}); it may be truncated") from None
