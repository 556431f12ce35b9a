"""Studies: a story a file, `run` and what a report says of it, `section`.

`run(*, run, ...)` has keyword-only arguments, which are the keys of its config, and returns what results.json holds.
`section(runs)` makes the sections of a page about finished runs of it; a study without one stands in the last section
alone, which says where numbers come from. `claims(runs)`, where there is one, is what they say of the paper's claims.
"""

from __future__ import annotations

from types import ModuleType

from ncjax.core.errors import UserError
from ncjax.core.resolve import study_module


def module_of(study: str) -> ModuleType:
    """The module of a study, by the name that configs give it.

    Raises:
      UserError: there is none, or it has no function `run`.
    """
    found = study_module(study)
    if not callable(getattr(found, "run", None)):
        raise UserError(f"study {study!r} has no function run")
    return found
