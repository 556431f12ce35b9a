"""The door: configs in, keyword arguments out. Only this file and `main` know `ConfigDict`.

A study's signature is its schema. `make` turns it into a `ConfigDict` with every key, so that any of them can be set in
the config file, in its argument (`config.py:key=value,smoke`) or on the command line (`--config.key=value`).
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import textwrap
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict, config_dict

from ncjax import studies
from ncjax.core import options
from ncjax.core.errors import UserError, meant, nearest
from ncjax.core.options import REQUIRED, Option, key_of, schema
from ncjax.core.resolve import module_of_file, running, spelled
from ncjax.core.values import accepts, describe, element, kinds


def check(study: str, values: dict[str, Any]) -> dict[str, Any]:
    """The complete keys of a study, or of a chain with all of its steps.

    Raises:
      UserError: unknown study or key (with the nearest right one), a wrong type, or a required key not set.
    """
    out = options.check(studies.module_of(study).run, study, values)
    if isinstance(out.get("steps"), dict):
        out["steps"] = {name: {"study": step["study"], **each} for name, step, each in _each_step(out["steps"], check)}
    return out


Made = TypeVar("Made")


def _each_step(steps: Any, make: Callable[[str, dict[str, Any]], Made]) -> Iterator[tuple[str, Any, Made]]:
    """(name, step, what `make` makes of its study and keys) of every step of a chain.

    Raises:
      UserError: no steps, a name that is no folder's, a step without study, or what `make` refuses; the step is named.
    """
    if not isinstance(steps, dict) or not steps:
        raise UserError(f"steps={steps!r}: expected at least one, as {{name: {{'study': 'pretrain', ...}}}}")
    for name, step in steps.items():
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
            raise UserError(f"step {name!r}: expected a name of letters, digits, - and _; it becomes a folder's")
        if not isinstance(step, dict) or not isinstance(step.get("study"), str):
            raise UserError(f"step {name!r}: expected a dictionary with its study, as {{'study': 'pretrain', ...}}")
        try:
            yield name, step, make(step["study"], {k: v for k, v in step.items() if k != "study"})
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
        elif option.overrides is not None:
            value = ConfigDict(_variants(value, option.overrides.keys, known), sort_keys=False)
        elif isinstance(value, dict):
            value = ConfigDict({name: each for name, _, each in _each_step(value, _config_dict)}, sort_keys=False)
        elif isinstance(value, int) and not isinstance(value, bool) and float in kinds(option.hint):
            value = float(value)
        config[key] = value
    return config


def _variants(value: dict[str, Any], keys: Collection[str], known: dict[str, Option]) -> dict[str, Any]:
    """{name: {key: value}} as nested configs, keys by their own words; values are checked with the rest of the config."""
    own = {key: known[key] for key in keys}
    return {
        name: ConfigDict(options.renamed(changes, own, name), sort_keys=False) if isinstance(changes, dict) else changes
        for name, changes in value.items()
    }


def _named(value: Any) -> Any:
    """Functions as the names by which they are found again, in lists too."""
    if isinstance(value, list | tuple):
        return [_named(x) for x in value]
    if isinstance(value, dict):
        return {name: _named(x) for name, x in value.items()}
    return spelled(value) if callable(value) else value


def make(
    study: str, arg: str = "", *, smoke: dict[str, Any], variants: dict[str, dict[str, Any]] | None = None, **values: Any
) -> ConfigDict:
    """A config: the study's defaults, then `values`, then the variants that the argument names, then its keys.

    Args:
      study: name of a module in `ncjax.studies`, or of one's own: `file.py`, `my_package.study`.
      arg: what follows the colon in `--config=configs/foo.py:arg`.
      smoke: what the `:smoke` variant changes, to run in seconds; it comes last.
      variants: what others change, by name: `--config=configs/foo.py:cifar`.
      **values: the config's own settings; functions by name, or themselves.

    Raises:
      UserError: a key or a type that the study does not take.
    """
    known = schema(studies.module_of(study).run)
    named = {**(variants or {}), "smoke": smoke}
    words, chosen = parse_arg(arg or "", known, study, named)
    merged: dict[str, Any] = {}
    values = {key: _named(value) for key, value in values.items()}
    for given in (values, *(named[name] for name in sorted(words, key=list(named).index)), chosen):
        merged |= options.renamed(given, known, study)
    for key, value in merged.items():
        hint = known[key].hint
        if not accepts(hint, value):
            raise UserError(f"{key}={value!r} for {study}: expected {describe(hint)}")
    return _config_dict(study, merged)


CONFIGS = Path(__file__).parent / "configs"  # those that ship with ncjax


def shipped() -> dict[str, str]:
    """{name: the first line of its docstring} of the configs that ship with ncjax: `finetune`, `paper/e1`, ..."""
    found = {}
    for path in sorted(CONFIGS.glob("*.py")) + sorted(CONFIGS.glob("*/*.py")):
        note = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.relative_to(CONFIGS).with_suffix("").as_posix()] = note.partition("\n")[0]
    return found


def _place(path: str) -> str:
    """The file itself, or the one that ships with ncjax under that name: `finetune`, `configs/finetune.py`.

    Raises:
      UserError: there is neither.
    """
    name = path.removesuffix(".py").removeprefix("configs/")
    ships = (CONFIGS / f"{name}.py").is_file()
    if os.path.lexists(Path(path).expanduser()) and not (ships and Path(path).expanduser().is_dir()):
        return path
    if ships:
        return str(CONFIGS / f"{name}.py")
    raise UserError(f"no file {path}{meant(name, shipped()) or '; `ncjax list` names what there is'}")


def load(spec: str) -> ConfigDict:
    """The config of `FILE.py` or `FILE.py:argument`: what its `get_config(argument)` returns.

    Args:
      spec: a file, or the name of one that ships with ncjax; an argument after a colon.

    Raises:
      UserError: no such file, one that does not run (the line says where), one without `get_config`, one that returns no
        config of a study, or a key that the study does not take.
    """
    path, _, arg = spec.partition(":")
    path = _place(path)
    get_config = getattr(module_of_file(path), "get_config", None)
    if not callable(get_config):
        raise UserError(f"{path} has no function get_config")
    with running(path):
        takes = bool(inspect.signature(get_config).parameters)
        if arg and not takes:
            raise UserError(f"{path}: its get_config takes no argument, and {arg!r} was given")
        config = get_config(arg) if takes else get_config()
    if not isinstance(config, ConfigDict) or not isinstance(config.get("study"), str):
        what = "a config without a study" if isinstance(config, ConfigDict) else type(config).__name__
        raise UserError(f"{path}: get_config returned {what}; expected what ncjax.config.make('pretrain', ...) returns")
    return config


def override(config: ConfigDict, dotted: str, text: str) -> None:
    """Sets a key such as "lr" or "steps.pretrain.lr" from the command line.

    Raises:
      UserError: there is no such key, or the value is of the wrong type.
    """
    *folders, key = dotted.split(".")
    study, known = str(config.study), schema(studies.module_of(str(config.study)).run)
    within = "study"  # what `config` is: a study's keys, the steps of a chain, the variants of a sweep, or one of them
    for folder in folders:
        inner = config.get(folder)
        if not isinstance(inner, ConfigDict):
            raise UserError(f"no key {dotted!r}; {nearest(folder, [k for k in config if k != 'study'])}")
        if "study" in inner:
            study, within = str(inner.study), "study"
            known = schema(studies.module_of(study).run)
        elif within == "study" and (allowed := known[folder].overrides) is not None:
            study, within = f"{folder}.NAME of {study}", "variants"
            known = {k: known[k] for k in allowed.keys}
        else:
            within = "variant" if within == "variants" else "steps"
        config = inner
    if within in ("steps", "variants"):
        raise UserError(f"no key {dotted!r}; {within}: {', '.join(config)}")
    key = key_of(key, known, study)
    with config.ignore_type():
        config[key] = read_value(key, text, known[key].hint)


def described(config: Any, prefix: str = "") -> str:
    """Every key of a config: what it is, what may be set, what is set, and what it means."""
    study = studies.module_of(str(config.study)).run
    meanings, lines = options.meanings(study), [f"keys of study {config.study}:" if not prefix else f"step {prefix[6:-1]}:"]
    for key, option in schema(study).items():
        value = config.get(key)
        if option.overrides is not None and isinstance(value, ConfigDict):
            changes = value.to_dict()
            lines += [f"  --config.{prefix}{key}.{name}.{k}={x}" for name, many in changes.items() for k, x in many.items()]
            lines += textwrap.wrap(meanings.get(key, ""), 100, initial_indent=" " * 8, subsequent_indent=" " * 8)
            continue
        if isinstance(value, ConfigDict):
            lines += [described(value[name], f"steps.{name}.") for name in value]
            continue
        lines.append(f"  --config.{prefix}{key}={value}  ({option.words()})")
        lines += textwrap.wrap(meanings.get(key, ""), 100, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def plain(config: ConfigDict) -> tuple[str, dict[str, Any]]:
    """(study, complete keyword arguments) of a config, checked."""
    values = config.to_dict()
    study = values.pop("study")
    return study, check(study, values)
