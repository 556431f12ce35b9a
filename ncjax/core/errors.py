"""What a user can mend is one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user can mend. Its text is the single line printed before exit code 2."""


def meant(name: str, known: Iterable[str]) -> str:
    """A "; did you mean ...?" clause for a misspelt name; "" where nothing is near."""
    found = nearest(name, known)
    return f"; {found}" if found.startswith("did you mean") else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """A '; did you mean ...?' clause for a misspelt name, or the list of what exists."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)
