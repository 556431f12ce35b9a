"""Strings in configs are dotted paths below `ncjax`, optionally called: `models.resnet.resnet18(width=32)`."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from ncjax.core.errors import UserError, nearest


def public_names(module: Any) -> list[str]:
    """The public functions of a module: those that it defines, or that a package lists in `__all__`."""
    listed = getattr(module, "__all__", ())
    return sorted(
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith("_") and (
            value.__module__ == module.__name__ or name in listed)
    )


def _split_call(text: str) -> tuple[str, dict[str, Any]]:
    """`"a.b(c=1, d=x)"` -> `("a.b", {"c": 1, "d": "x"})`; bare words are strings."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if not isinstance(node, ast.Call):
            return ast.unparse(node), {}
        if node.args or any(k.arg is None for k in node.keywords):
            raise UserError(f"{text!r}: write arguments as key=value")
        kwargs = {}
        for keyword in node.keywords:
            bare = isinstance(keyword.value, ast.Name) and keyword.value.id not in ("True", "False", "None")
            kwargs[keyword.arg] = keyword.value.id if bare else ast.literal_eval(keyword.value)
        return ast.unparse(node.func), kwargs
    except UserError:
        raise
    except (SyntaxError, ValueError):
        raise UserError(f"cannot read {text!r}: expected a dotted name such as 'losses.mse(scale=15)'") from None


def resolve(text: str) -> Callable[..., Any]:
    """The function named by `text`, with the keyword arguments written in it bound.

    Raises:
      UserError: no such module or function below `ncjax`, or an argument the function does not take.
    """
    path, kwargs = _split_call(text)
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(f"ncjax.{module_name}" if module_name else "ncjax")
    except ModuleNotFoundError:
        raise UserError(f"no module ncjax.{module_name} for {text!r}; a dotted name looks like "
                        "'models.resnet.resnet18'") from None
    known = public_names(module)
    if name not in known:
        raise UserError(f"ncjax.{module_name} has no {name!r}; {nearest(name, known)} (public: {', '.join(known)})")
    function = getattr(module, name)
    accepted = list(inspect.signature(function).parameters)
    for key in kwargs:
        if key not in accepted:
            raise UserError(f"{path} has no argument {key!r}; {nearest(key, accepted)}")
    return functools.partial(function, **kwargs) if kwargs else function


def pick(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The entries of `options` that are keyword-only arguments of `function`."""
    names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {name: options[name] for name in names if name in options}
