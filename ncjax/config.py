"""The door: configs in, keyword arguments out. Only this file and `main` know `ConfigDict`.

A study's signature is its schema. `make` turns it into a `ConfigDict` with every key, so that any of them can be set in
the config file, in its argument (`config.py:key=value,smoke`) or on the command line (`--config.key=value`).
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from ncjax import studies
from ncjax.core import options
from ncjax.core.errors import UserError, nearest
from ncjax.core.options import REQUIRED, Option, accepts, describe, element, key_of, kinds, schema
from ncjax.core.resolve import module_of_file


def check(study: str, values: dict[str, Any]) -> dict[str, Any]:
    """The complete keys of a study, or of a chain with all of its steps.

    Raises:
      UserError: unknown study or key (with the nearest right one), a wrong type, or a required key not set.
    """
    out = options.check(studies.module_of(study).run, study, values)
    if isinstance(out.get("steps"), dict):
        out["steps"] = {name: {"study": step.get("study"), **check_step(name, step)} for name, step in out["steps"].items()}
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


def _parts(arg: str, words: Collection[str]) -> list[str]:
    """Splits at commas outside brackets; a part without '=' that is none of the words belongs to the value before it."""
    joined: list[str] = []
    for part in _split(arg):
        if joined and part.strip() not in words and "=" not in part and "=" in joined[-1]:
            joined[-1] += "," + part
        elif part.strip():
            joined.append(part.strip())
    return joined


def parse_arg(
    arg: str, known: dict[str, Option], study: str, variants: Collection[str] = ("smoke",)
) -> tuple[list[str], dict[str, Any]]:
    """`"smoke,lr=0.1"` -> (["smoke"], {"lr": 0.1}); values are read by the type that the study asks for."""
    chosen, values = [], {}
    for part in _parts(arg, variants):
        key, equals, text = part.partition("=")
        if equals:
            key = key_of(key, known, study)
            values[key] = read_value(key, text, known[key].hint)
        elif key in variants:
            chosen.append(key)
        else:
            words = ", ".join(map(repr, variants))
            raise UserError(f"cannot read {key!r} after the config's colon: expected {words} or key=value")
    return chosen, values


def read_value(key: str, text: str, hint: Any) -> Any:
    """Text -> a value of the type `hint`."""
    allowed = kinds(hint)
    if text == "None" and type(None) in allowed:
        return None
    if str in allowed:
        return text
    if list in allowed:
        inside = text.strip().removeprefix("[").removesuffix("]")
        return [read_value(key, part.strip().strip("'\""), element(hint)) for part in _split(inside) if part.strip()]
    try:
        value = ast.literal_eval(text.capitalize() if bool in allowed else text)
    except (ValueError, SyntaxError):
        value = text
    if not accepts(hint, value):
        raise UserError(f"{key}={text!r}: expected {describe(hint)}")
    return value


def _config_dict(study: str, values: dict[str, Any]) -> ConfigDict:
    config, known = ConfigDict({"study": study}, sort_keys=False), schema(studies.module_of(study).run)
    values = options.renamed(values, known, study)
    for key, option in known.items():
        value = values.get(key, None if option.default is REQUIRED else option.default)
        if value is None:
            kind = next(k for k in kinds(option.hint) if k is not type(None))
            value = config_dict.placeholder(kind)
        elif isinstance(value, dict):
            value = ConfigDict({name: _step(name, step) for name, step in value.items()}, sort_keys=False)
        elif isinstance(value, int) and not isinstance(value, bool) and float in kinds(option.hint):
            value = float(value)
        config[key] = value
    return config


def _step(name: str, step: dict[str, Any]) -> ConfigDict:
    try:
        return _config_dict(str(step.get("study")), {k: v for k, v in step.items() if k != "study"})
    except UserError as e:
        raise UserError(f"step {name!r}: {e}") from None


def make(
    study: str, arg: str = "", *, smoke: dict[str, Any], variants: dict[str, dict[str, Any]] | None = None, **values: Any
) -> ConfigDict:
    """A config: the study's defaults, then `values`, then the variants that the argument names, then its keys.

    Args:
      study: name of a module in `ncjax.studies`, or of one's own: `file.py`, `my_package.study`.
      arg: what follows the colon in `--config=configs/foo.py:arg`.
      smoke: what the `:smoke` variant changes, to run in seconds; it comes last.
      variants: what others change, by name: `--config=configs/foo.py:cifar`.
      **values: the config's own settings.

    Raises:
      UserError: a key or a type that the study does not take.
    """
    known = schema(studies.module_of(study).run)
    named = {**(variants or {}), "smoke": smoke}
    words, chosen = parse_arg(arg or "", known, study, named)
    merged: dict[str, Any] = {}
    for given in (values, *(named[name] for name in sorted(words, key=list(named).index)), chosen):
        merged |= options.renamed(given, known, study)
    for key, value in merged.items():
        hint = known[key].hint
        if not accepts(hint, value):
            raise UserError(f"{key}={value!r} for {study}: expected {describe(hint)}")
    return _config_dict(study, merged)


def load(spec: str) -> ConfigDict:
    """The config of `FILE.py` or `FILE.py:argument`: what its `get_config(argument)` returns.

    Raises:
      UserError: no such file, a file without `get_config`, or a key that the study does not take.
    """
    path, _, arg = spec.partition(":")
    if not Path(path).is_file():
        raise UserError(f"no config file {path!r}")
    module = module_of_file(path)
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
        inner = config.get(folder)
        if not isinstance(inner, ConfigDict):
            raise UserError(f"no key {dotted!r}; {nearest(folder, [k for k in config if k != 'study'])}")
        config = inner
    if "study" not in config:
        raise UserError(f"no key {dotted!r}; steps: {', '.join(config)}")
    study = str(config.study)
    known = schema(studies.module_of(study).run)
    key = key_of(key, known, study)
    with config.ignore_type():
        config[key] = read_value(key, text, known[key].hint)


def plain(config: ConfigDict) -> tuple[str, dict[str, Any]]:
    """(study, complete keyword arguments) of a config, checked."""
    values = config.to_dict()
    study = values.pop("study")
    return study, check(study, values)
