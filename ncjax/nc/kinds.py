"""What was handed over in place of an array, or of statistics, in a sentence that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ncjax.core.errors import UserError


def check_kind(x: Any, name: str) -> None:
    """Refuses what is no array of numbers.

    Raises:
      UserError: None, text, a dictionary, rows of different lengths, a sparse matrix, masked values, or other objects.
    """
    what = _kind(x)
    if what is not None:
        raise UserError(f"{name}: {what}")


def _kind(x: Any) -> str | None:
    if x is None:
        return "got None, expected an array"
    if isinstance(x, str | bytes):
        return "got text, expected an array"
    if isinstance(x, Mapping):
        keys = ", ".join(map(repr, list(x)[:3]))
        return (
            f"got a dictionary, expected one array: the value of one of its keys ({keys})"
            if x
            else "got an empty dictionary"
        )
    if isinstance(x, np.ma.MaskedArray) and np.ma.getmaskarray(x).any():
        masked = int(np.ma.getmaskarray(x).sum())
        return f"{masked} values of a masked array are masked; leave their rows out, or fill them"
    if hasattr(x, "toarray") and hasattr(x, "nnz"):
        return "got a sparse matrix; give its .toarray()"
    if isinstance(x, set | frozenset) or callable(x) or (hasattr(x, "__next__") and not hasattr(x, "__array__")):
        return f"got {type(x).__name__}, expected an array"
    if isinstance(x, list | tuple):
        try:
            x = np.asarray(x)
        except ValueError:
            return _of_rows(x)
        except TypeError as e:
            return f"cannot be read as an array of numbers: {str(e).splitlines()[0]}"
    dtype = getattr(x, "dtype", None)
    if getattr(dtype, "kind", "f") in "OUSMmV" and str(dtype) != "bfloat16" and not str(dtype).startswith("float8"):
        return (
            _of_rows(x.tolist()) if getattr(dtype, "kind", "") == "O" and np.ndim(x) else f"got {dtype}, expected numbers"
        )
    return None


def _of_rows(rows: Any) -> str:
    lengths = sorted({len(row) for row in rows if isinstance(row, list | tuple) or getattr(row, "ndim", 0)})
    if len(lengths) > 1:
        return f"its rows are of different lengths ({lengths[0]} to {lengths[-1]}); pad or cut them"
    strange = next(
        (row for row in rows if not isinstance(row, int | float | list | tuple | np.ndarray)), rows[0] if rows else None
    )
    return f"holds {type(strange).__name__}, expected numbers"


def expect(x: Any, kind: type, name: str, source: str) -> None:
    """Refuses what is not of a kind.

    Raises:
      UserError: it is not; the line says where one comes from.
    """
    if not isinstance(x, kind):
        raise UserError(f"{name}: got {type(x).__name__}, expected {kind.__name__}, as {source} returns")
