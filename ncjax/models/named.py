"""A model by the name that a config gives it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ncjax.core.errors import UserError
from ncjax.core.roles import MODEL, resolve
from ncjax.core.types import Model


def build(name: str, num_classes: int, projection_layers: int = 0) -> Model:
    """`models.resnet.resnet18(width=32)`, or one's own, `file.py:function`, built.

    Raises:
      UserError: no such function, one that is no model, a setting that it does not take, or something else returned.
    """
    function = resolve(name, MODEL)
    settings = {"num_classes": num_classes, "projection_layers": projection_layers}
    if isinstance(function, functools.partial):
        function, settings = function.func, {**function.keywords, **settings}
    try:
        model = _built(function, tuple(sorted(settings.items())))
    except TypeError:  # a setting that cannot be hashed, a list
        model = function(**settings)
    if not isinstance(model, Model):
        raise UserError(f"model={name}: returned {type(model).__name__}, expected ncjax.core.types.Model")
    return model


@functools.lru_cache(maxsize=32)
def _built(function: Callable[..., Any], settings: tuple[tuple[str, Any], ...]) -> Any:
    """The same object for the same model, so that programs that run it are shared."""
    return function(**dict(settings))
