"""What a function that a config names is for. A key takes functions of its role only; others are never called.

    model: Annotated[str, MODEL] = "models.resnet.resnet18(width=32)"

A role says what its functions are given and what they return. Those of ncjax lie in its home and take exactly that; one's
own take it too, and return it where they say what they return. What is in brackets are settings: arguments that the role
does not give, in the types and ranges of their annotations (`core.values`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import pkgutil
import sys
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from ncjax.core.errors import UserError, nearest
from ncjax.core.resolve import find, public_names, split_call
from ncjax.core.values import fault, split


class Role(NamedTuple):
    """What functions of a kind have in common."""

    word: str  # "model", in errors
    homes: tuple[str, ...]  # modules and packages of ncjax where they lie
    takes: tuple[str, ...] | None  # what they are given; None where they name what they want
    returns: tuple[str, ...] = ()  # names of types; none where any will do
    by_keyword: bool = False  # whether they are given it by these names
    keys: tuple[str, ...] = ()  # among `takes`: what is a key of its own
    mark: str = ""  # an attribute that all of them have


MODEL = Role(
    "model", ("models",), ("num_classes", "projection_layers"), ("Model",), by_keyword=True, keys=("projection_layers",)
)
LOSS = Role("loss", ("losses",), (), ("Loss", "Objective"))
AUGMENT = Role("augmentation", ("augment",), ("key", "images"), ("Array",))
OPTIMIZER = Role("optimiser", ("optim",), ("lr", "weight_decay", "decay_mask"), ("GradientTransformation",))
SCHEDULE = Role("schedule", ("optim",), ("lr", "steps"))
DECAY = Role("decay mask", ("optim",), ("params",))
METHOD = Role("tuning method", ("tuning",), ("network", "target"), ("Plan",), by_keyword=True)
SCORE = Role("score", ("scores",), None, mark="label")
METRIC = Role("collapse metric", ("nc.metrics",), None)
READER = Role("data reader", (), (), ("Raw",))


def resolve(text: str, role: Role) -> Callable[..., Any]:
    """The function of a role that `text` names, with the settings written in it bound.

    Raises:
      UserError: no such module, file or function; a function that is for something else; a setting that it does not have,
        or of another type or range.
    """
    path, given = split_call(text)
    try:
        function = find(path)
    except UserError as e:
        raise UserError(str(e) if "did you mean" in str(e) or "known:" in str(e) else f"{e}{_hint(path, role)}") from None
    reason = _unfit(function, role, given)
    if reason is not None:
        raise UserError(f"{path} is no {role.word}: {reason}{_hint(path, role)}")
    known = settings(function, role)
    hints = _hints(function)
    for key, value in given.items():
        if known is not None and key not in known:
            if key in role.keys:
                raise UserError(f"{key} is a key of its own: set {key}={value!r}")
            meant = nearest(key, known) if known else "it takes no settings"
            meant = "ncjax gives it that itself" if key in (role.takes or ()) else meant
            raise UserError(f"{path} has no setting {key!r}; {meant}")
        wrong = fault(*split(hints.get(key, Any)), value)
        if wrong:
            raise UserError(f"{path}({key}={value!r}): {wrong}")
    return functools.partial(function, **given) if given else function


def settings(function: Callable[..., Any], role: Role) -> list[str] | None:
    """What may be set of a function in brackets: arguments with a default or by keyword that the role does not give.

    Those of an `Unpack` are among them.

    Returns:
      None where the function takes any keyword.
    """
    known: list[str] = []
    for p in _signature(function).parameters.values():
        if p.kind is p.VAR_KEYWORD:
            hint = _annotations(function).get(p.name)
            if typing.get_origin(hint) is not typing.Unpack:
                return None
            known += typing.get_args(hint)[0].__annotations__
        elif p.kind is p.KEYWORD_ONLY or p.default is not p.empty:
            known.append(p.name)
    return [name for name in known if name not in (role.takes or ())]


def known_of(role: Role) -> list[str]:
    """Names of ncjax's functions of a role, as configs write them."""
    found = []
    for home in role.homes:
        package = importlib.import_module(f"ncjax.{home}")
        modules = [package]
        if hasattr(package, "__path__") and not public_names(package):
            modules = [importlib.import_module(f"ncjax.{home}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
        for module in modules:
            dotted = module.__name__.removeprefix("ncjax.")
            for name in public_names(module):
                if _unfit(getattr(module, name), role) is None:
                    found.append(dotted if dotted.endswith(f".{name}") and role is SCORE else f"{dotted}.{name}")
    return found


def _hint(path: str, role: Role) -> str:
    """ "; did you mean ...?", for the name of a function that is not there or is no good."""
    if ".py:" in path:
        return ""
    known = known_of(role)
    word = path.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == word and name != path]
    if same:
        return f"; did you mean {same[0]!r}?"
    if not known:
        return ""
    if len(known) <= 16:
        return f"; {nearest(path, known)}"
    meant = nearest(path, known)
    return f"; {meant}" if meant.startswith("did you mean") else f"; for example {known[0]!r}, {known[-1]!r}"


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return inspect.Signature([inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)])


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations that can be told; one's own file may annotate with what is not there."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:
        found, known = {}, getattr(function, "__globals__", {})
        for name, hint in getattr(function, "__annotations__", {}).items():
            with contextlib.suppress(Exception):
                found[name] = eval(hint, known) if isinstance(hint, str) else hint
        return found


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Types of a function's arguments and of what it returns, `Unpack` opened."""
    hints = _annotations(function)
    for name, hint in list(hints.items()):
        if typing.get_origin(hint) is typing.Unpack:
            hints |= typing.get_type_hints(typing.get_args(hints.pop(name))[0], include_extras=True)
    return hints


def _unfit(function: Callable[..., Any], role: Role, given: dict[str, Any] | None = None) -> str | None:
    """Why a function, with its settings given, is not of a role; None where it is."""
    module = getattr(function, "__module__", None) or ""
    if module.partition(".")[0] in (*sys.stdlib_module_names, "builtins"):
        return "it is of Python's own library"
    inside = module == "ncjax" or module.startswith("ncjax.")
    if inside and not any(f"{module}.".startswith(f"ncjax.{home}.") for home in role.homes):
        return f"it is of {module}"
    if inside and role.mark and not hasattr(function, role.mark):
        return f"it has no {role.mark}"
    parameters = _signature(function).parameters.values()
    wanted = [p.name for p in parameters if p.default is p.empty and p.kind < p.VAR_POSITIONAL and p.name not in role.keys]
    if inside and role.takes is not None and wanted != [name for name in role.takes if name not in role.keys]:
        return f"it takes {', '.join(wanted) or 'nothing'}"
    returned = _hints(function).get("return")
    names = {getattr(split(t)[0], "__name__", "") for t in typing.get_args(returned) or (returned,)}
    if role.returns and returned not in (None, Any) and not names & {*role.returns, "Any"}:
        return f"it returns {' or '.join(sorted(names))}, not {' or '.join(role.returns)}"
    if role.takes is None:
        return None
    args, kwargs = ((), dict.fromkeys(role.takes)) if role.by_keyword else ((None,) * len(role.takes), {})
    own = {key: value for key, value in (given or {}).items() if key not in role.takes}
    try:
        _signature(function).bind(*args, **{**kwargs, **own})
    except TypeError as e:
        if "unexpected keyword argument" in str(e) and any(repr(key) in str(e) for key in own):
            return None  # a setting that it does not have, which is said of the setting
        return f"it takes {', '.join(wanted) or 'nothing'}, not {', '.join(role.takes) or 'nothing'}"
    return None
