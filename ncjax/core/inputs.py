"""What a function asks for: metrics and scores name their inputs by parameter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

from ncjax.core.errors import UserError


@functools.lru_cache(maxsize=1024)
def named_inputs(function: Callable[..., Any], kind: str, known: Collection[str]) -> dict[str, bool]:
    """The inputs that a function names, and whether it cannot do without; what is bound, or has a default, is a setting.

    Args:
      function: with or without bound settings.
      kind: what it is and its name, for errors: "score own.py:mine".
      known: the names of all inputs, a tuple.

    Raises:
      UserError: it cannot do without something that is no input.
    """
    bound = function.keywords if isinstance(function, functools.partial) else {}
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in bound]
    asked = {p.name: p.default is p.empty for p in parameters if p.default is p.empty or p.name in known}
    for name in asked:
        if name not in known:
            raise UserError(f"{kind} asks for {name!r}, which does not exist; inputs: {', '.join(known)}")
    return asked
