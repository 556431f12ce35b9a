"""The door: configs in, keyword arguments out. Only this file and `main` know `ConfigDict`.

A study's signature is its schema. `make` turns it into a `ConfigDict` with every key, so that any of them can be set in
the config file, in its argument (`config.py:key=value,smoke`) or on the command line (`--config.key=value`).
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from ncjax.core.errors import UserError, nearest
from ncjax.core.resolve import resolve

_REQUIRED = inspect.Parameter.empty
ALIASES = {"weights": "init"}  # other words for a key, where a study has no such key of its own
DOTTED = ("model", "loss", "augment", "optimizer", "schedule", "decay", "method")  # keys that name a function


def schema(study: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """{key: (type, default)} of a study's keyword-only arguments, those of the functions it passes options to included."""
    hints = typing.get_type_hints(study, include_extras=True)
    found: dict[str, tuple[Any, Any]] = {}
    for name, parameter in inspect.signature(study).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and name != "run":
            found[name] = (hints[name], parameter.default)
        elif parameter.kind is parameter.VAR_KEYWORD:
            for function in typing.get_args(hints[name])[1:]:
                found.update(schema(function))
    return found


def _kinds(hint: Any) -> tuple[type, ...]:
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(typing.get_origin(p) or p for p in parts)


def _element(hint: Any) -> Any:
    """The type of a list's elements, or None for other types."""
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((typing.get_args(p)[0] for p in parts if typing.get_origin(p) is list), None)


def _accepts(hint: Any, value: Any) -> bool:
    kinds = _kinds(hint)
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, list | tuple) and _element(hint) is not None:
        return all(_accepts(_element(hint), x) for x in value)
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def _describe(hint: Any) -> str:
    words = ("None" if k is type(None) else f"list of {_describe(_element(hint))}" if k is list else k.__name__
             for k in _kinds(hint))
    return " or ".join(words)


def check(study: str, values: dict[str, Any]) -> dict[str, Any]:
    """The complete keyword arguments of a study.

    Raises:
      UserError: unknown study or key (with the nearest right one), a wrong type, or a required key not set.
    """
    known = schema(resolve(f"studies.{study}.run"))
    for key in values:
        if key not in known:
            raise UserError(f"no key {key!r} for {study}; {nearest(key, known)}")
    out = {}
    for key, (hint, default) in known.items():
        value = values.get(key, default)
        if value is _REQUIRED or (value is None and default is _REQUIRED):
            raise UserError(f"{study} needs {key}: set --config.{key}=...")
        if not _accepts(hint, value):
            raise UserError(f"{key}={value!r} for {study}: expected {_describe(hint)}, got {type(value).__name__}")
        out[key] = float(value) if float in _kinds(hint) and type(value) is int else value
        if isinstance(value, list | tuple):
            out[key] = [float(x) if _element(hint) is float else x for x in value]
        for name in (value if key == "methods" else [value] if key in DOTTED and value is not None else []):
            resolve(name)  # an unknown name is found before any data is touched
    if isinstance(out.get("steps"), dict):
        out["steps"] = {name: {"study": step.get("study"), **check_step(name, step)}
                        for name, step in out["steps"].items()}
    return out


def check_step(name: str, step: dict[str, Any]) -> dict[str, Any]:
    """`check` of one step of a chain, with the step named in the error."""
    try:
        return check(str(step.get("study")), {k: v for k, v in step.items() if k != "study"})
    except UserError as e:
        raise UserError(f"step {name!r}: {e}") from None


def _split(text: str) -> list[str]:
    """Splits at commas outside brackets."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]


def _parts(arg: str) -> list[str]:
    """Splits at commas outside brackets; a part without '=' that is no flag belongs to the value before it."""
    joined: list[str] = []
    for part in _split(arg):
        if joined and part.strip() != "smoke" and "=" not in part and "=" in joined[-1]:
            joined[-1] += "," + part
        elif part.strip():
            joined.append(part.strip())
    return joined


def parse_arg(arg: str, types_of: dict[str, tuple[Any, Any]], study: str) -> tuple[bool, dict[str, Any]]:
    """`"smoke,lr=0.1"` -> (True, {"lr": 0.1}); values are read by the type that the study asks for."""
    smoke, values = False, {}
    for part in _parts(arg):
        key, equals, text = part.partition("=")
        if not equals:
            if key != "smoke":
                raise UserError(f"cannot read {key!r} after the config's colon: expected 'smoke' or key=value")
            smoke = True
            continue
        key = ALIASES.get(key, key) if key not in types_of else key
        if key not in types_of:
            raise UserError(f"no key {key!r} for {study}; {nearest(key, types_of)}")
        values[key] = read_value(key, text, types_of[key][0])
    return smoke, values


def read_value(key: str, text: str, hint: Any) -> Any:
    """Text -> a value of the type `hint`."""
    kinds = _kinds(hint)
    if text == "None" and type(None) in kinds:
        return None
    if str in kinds:
        return text
    if list in kinds:
        inside = text.strip().removeprefix("[").removesuffix("]")
        return [read_value(key, part.strip().strip("'\""), _element(hint)) for part in _split(inside) if part.strip()]
    try:
        value = ast.literal_eval(text.capitalize() if bool in kinds else text)
    except (ValueError, SyntaxError):
        value = text
    if not _accepts(hint, value):
        raise UserError(f"{key}={text!r}: expected {_describe(hint)}")
    return value


def _config_dict(study: str, values: dict[str, Any]) -> ConfigDict:
    config = ConfigDict({"study": study}, sort_keys=False)
    for key, (hint, default) in schema(resolve(f"studies.{study}.run")).items():
        value = values.get(key, None if default is _REQUIRED else default)
        if value is None:
            kind = next(k for k in _kinds(hint) if k is not type(None))
            value = config_dict.placeholder(kind)
        elif isinstance(value, dict):
            value = ConfigDict({n: _config_dict(s["study"], s) for n, s in value.items()}, sort_keys=False)
        elif isinstance(value, int) and not isinstance(value, bool) and float in _kinds(hint):
            value = float(value)
        config[key] = value
    return config


def make(study: str, arg: str = "", *, smoke: dict[str, Any], **values: Any) -> ConfigDict:
    """A config: the study's defaults, then `values`, then (if the argument says so) `smoke`, then the argument's keys.

    Args:
      study: name of a module in `ncjax.studies`.
      arg: what follows the colon in `--config=configs/foo.py:arg`.
      smoke: what the `:smoke` variant changes, to run in seconds.
      **values: the config's own settings.

    Raises:
      UserError: a key or a type that the study does not take.
    """
    types_of = schema(resolve(f"studies.{study}.run"))
    is_smoke, chosen = parse_arg(arg or "", types_of, study)
    merged = {**values, **(smoke if is_smoke else {}), **chosen}
    for key, value in merged.items():
        if key not in types_of:
            raise UserError(f"no key {key!r} for {study}; {nearest(key, types_of)}")
        if not _accepts(types_of[key][0], value):
            raise UserError(f"{key}={value!r} for {study}: expected {_describe(types_of[key][0])}")
    return _config_dict(study, merged)


def load(spec: str) -> ConfigDict:
    """The config of `FILE.py` or `FILE.py:argument`: what its `get_config(argument)` returns.

    Raises:
      UserError: no such file, a file without `get_config`, or a key that the study does not take.
    """
    path, _, arg = spec.partition(":")
    if not Path(path).is_file():
        raise UserError(f"no config file {path!r}")
    module_spec = importlib.util.spec_from_file_location("ncjax_config_" + Path(path).stem, path)
    if module_spec is None:
        raise UserError(f"config file {path!r} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as e:
        raise UserError(f"config file {path!r} does not parse: line {e.lineno}: {e.msg}") from None
    if not hasattr(module, "get_config"):
        raise UserError(f"config file {path!r} has no function get_config")
    return module.get_config(arg)


def override(config: ConfigDict, dotted: str, text: str) -> None:
    """Sets a key such as "lr" or "steps.pretrain.lr" from the command line.

    Raises:
      UserError: there is no such key, or the value is of the wrong type.
    """
    *folders, key = dotted.split(".")
    for folder in folders:
        if folder not in config or not isinstance(config[folder], ConfigDict):
            raise UserError(f"no key {dotted!r}; {nearest(folder, [k for k in config if k != 'study'])}")
        config = config[folder]
    if "study" not in config:
        raise UserError(f"no key {dotted!r}; steps: {', '.join(config)}")
    types_of = schema(resolve(f"studies.{config.study}.run"))
    key = ALIASES.get(key, key) if key not in types_of else key
    if key not in types_of:
        raise UserError(f"no key {key!r} for {config.study}; {nearest(key, types_of)}")
    with config.ignore_type():
        config[key] = read_value(key, text, types_of[key][0])


def plain(config: ConfigDict) -> tuple[str, dict[str, Any]]:
    """(study, complete keyword arguments) of a config, checked."""
    values = config.to_dict()
    study = values.pop("study")
    return study, check(study, values)
