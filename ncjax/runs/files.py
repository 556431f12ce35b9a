"""The JSON files of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from ncjax.core.errors import UserError
from ncjax.core.files import read_json
from ncjax.core.values import record

FORMAT = 3  # of config.json and results.json; see CHANGELOG.md for what each changed


class Record(NamedTuple):
    """What results.json holds."""

    format: int
    study: str
    config: dict[str, Any]
    results: dict[str, Any]
    seconds: float
    environment: dict[str, Any]
    rows: int | None = None  # lines of metrics.jsonl


def check_format(found: Any, what: str, wanted: int = FORMAT) -> None:
    """Refuses what another version of ncjax wrote.

    Args:
      found: what was read.
      what: its name in the error.
      wanted: the format that is read here.

    Raises:
      UserError: it is of another format.
    """
    if not isinstance(found, dict):
        raise UserError(f"{what} holds {type(found).__name__}, expected an object with its format")
    if found.get("format", 1) != wanted:
        raise UserError(
            f"{what} is of format {found.get('format', 1)}, this ncjax reads format {wanted}: use the version that wrote "
            "it, or run again"
        )


def read_record(workdir: Path) -> Record:
    """results.json of a finished run.

    Raises:
      UserError: there is none, it is damaged, or another version's.
    """
    path = workdir / "results.json"
    if (workdir / "config.json").is_file() and not os.path.lexists(path):
        raise UserError(f"{workdir} is not finished: no {path}; run its command again to go on")
    found = read_json(path)
    check_format(found, str(path))
    return record(Record, found, path)
