"""Runs as one table: a row a number, chains opened into their steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ncjax.core.errors import UserError
from ncjax.core.files import read_json
from ncjax.runs.rows import ROW_KEYS, read_rows

COLUMNS = ("run", "study", *ROW_KEYS)


def read(folder: str | Path) -> Any:
    """The rows of a run, or of all runs below a folder: a tidy `pandas.DataFrame`.

    >>> table = ncjax.runs.read("runs")
    >>> table[table.metric == "nc1"].pivot_table(index="epoch", columns=["run", "split"], values="value")

    Args:
      folder: a run, a chain, or a folder of them; unfinished runs are read as far as they are.

    Returns:
      Columns run (its folder, relative to `folder`), study, epoch, phase, split, layer, metric, value.

    Raises:
      UserError: no run there, damaged rows, or no pandas.
    """
    try:
        import pandas as pd  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError("ncjax.runs.read needs pandas: pip install 'ncjax[pandas]'") from None
    root = Path(folder).expanduser()
    found = sorted(path.parent for path in root.rglob("config.json") if _is_run(path))
    if not found:
        raise UserError(f"{folder} holds no run (a folder with a config.json that ncjax wrote)")
    table = []
    for run in found:
        study = read_json(run / "config.json")["study"]
        name = run.relative_to(root).as_posix() if run != root else run.resolve().name
        table += [(name, study, *(row[key] for key in ROW_KEYS)) for row in read_rows(run)]
    return pd.DataFrame(table, columns=list(COLUMNS)).astype({"value": float})


def _is_run(path: Path) -> bool:
    try:
        config = read_json(path)
    except UserError:
        return False
    return isinstance(config, dict) and isinstance(config.get("study"), str) and "format" in config
