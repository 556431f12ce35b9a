"""A study's signature is its schema. Options that belong together are one NamedTuple, whose fields are the keys.

    def run(*, run: Run, training: Training = Training(epochs=5), layer: str | None = None) -> dict: ...

has the keys of `Training`, with five epochs by default, and `layer`. `Annotated` says what a type does not:

    loss: Annotated[str, LOSS]                  the name of a function of that role, looked up before anything runs
    lr: Annotated[float, POSITIVE]              a range, see `core.values`
    init: Annotated[str, Also("weights")]       another word for the key, where a study has no such key of its own
    projection_layers: Annotated[int, Was("head")]    the word of earlier versions, of which a user is reminded
    variants: Annotated[dict[str, Any], Overrides("loss", "epochs")]     {name: {key: value}}, changes of these other keys

A block may have a method `check`, which raises `UserError` where its values do not go together.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from ncjax.core.errors import UserError, nearest
from ncjax.core.roles import Role, resolve
from ncjax.core.values import describe, element, fault, kinds, limits, split

REQUIRED = inspect.Parameter.empty


class Also(NamedTuple):
    """Another word for a key."""

    word: str


class Was(NamedTuple):
    """What a key was called before."""

    word: str


class Overrides:
    """What a dictionary {name: {key: value}} may change of a study's other keys, one variant a name."""

    def __init__(self, *keys: str):
        self.keys = keys

    def checked(self, what: str, value: dict[str, Any], known: dict[str, Option]) -> dict[str, dict[str, Any]]:
        """The variants, their values in the keys' types.

        Raises:
          UserError: no variant, a name that is no file's, a key that a variant may not change, or what `Option.checked`
            refuses; the variant is named.
        """
        if not value:
            raise UserError(f"{what}={{}}: expected at least one, as {{name: {{key: value}}}}")
        own, out = {key: known[key] for key in self.keys}, {}
        for name, changes in value.items():
            if not isinstance(name, str) or not re.fullmatch(r"[\w+-]+", name):
                raise UserError(f"{what}: {name!r}: expected a name of letters, digits, + - and _")
            if not isinstance(changes, dict):
                raise UserError(f"{what}.{name}: expected {{key: value}}, got {type(changes).__name__}")
            out[name] = {
                key: own[key].checked(f"{what}.{name}.{key}={x!r}", x)
                for key, x in renamed(changes, own, f"{what}.{name}").items()
            }
        return out


class Option(NamedTuple):
    """One key: its type, its default (`REQUIRED` for none), and what its annotation says beside the type."""

    hint: Any
    default: Any
    notes: tuple[Any, ...]

    @property
    def overrides(self) -> Overrides | None:
        """What a dictionary of variants may change; None for other keys."""
        return next((note for note in self.notes if isinstance(note, Overrides)), None)

    @property
    def role(self) -> Role | None:
        """What the functions are for that values name; None where values are no names of functions."""
        return next((note for note in self.notes if isinstance(note, Role)), None)

    def words(self) -> str:
        """Type and range, as `--help` prints them."""
        role, range_ = self.role, limits(self.notes)
        kind = describe(self.hint) if role is None else describe(self.hint).replace("str", f"function ({role.word})")
        return f"{kind}, {range_}" if range_ else kind

    def checked(self, what: str, value: Any) -> Any:
        """A value in the option's type.

        Args:
          what: the key and its study, as an error names them.
          value: what was set.

        Raises:
          UserError: another type, out of range, or a name that no function of the role has.
        """
        wrong = fault(self.hint, self.notes, value)
        if wrong is not None:
            raise UserError(f"{what}: {wrong}")
        if self.role is not None:
            for text in [value] if isinstance(value, str) else value or ():
                try:
                    resolve(text, self.role)
                except UserError as e:
                    raise UserError(f"{what.partition('=')[0]}={text}: {e}") from None
        if isinstance(value, list | tuple):
            return [float(x) if element(self.hint) is float else x for x in value]
        return float(value) if float in kinds(self.hint) and type(value) is int else value


def _is_block(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")


def _option(hint: Any, default: Any) -> Option:
    inner, notes = split(hint)
    return Option(inner, default, notes)


def _block(kind: Any, defaults: Any) -> dict[str, Option]:
    hints, own = typing.get_type_hints(kind, include_extras=True), kind._field_defaults
    return {
        name: _option(hints[name], getattr(defaults, name) if defaults is not None else own.get(name, REQUIRED))
        for name in kind._fields
    }


def schema(study: Callable[..., Any]) -> dict[str, Option]:
    """{key: option} of a study's keyword-only arguments, blocks of options opened into their fields."""
    hints, found = typing.get_type_hints(study, include_extras=True), {}
    for name, parameter in inspect.signature(study).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY or name == "run":
            continue
        given = None if parameter.default is REQUIRED else parameter.default
        if name not in hints:
            raise UserError(f"{study.__module__}.{study.__name__}: say of what type {name} is, as in {name}: float = 1.0")
        if _is_block(hints[name]):
            found |= _block(hints[name], given)
        else:
            found[name] = _option(hints[name], parameter.default)
    return found


def bind(study: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a study, its blocks of options put together from the keys."""
    hints, out = typing.get_type_hints(study, include_extras=True), {}
    for name, parameter in inspect.signature(study).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY or name == "run":
            continue
        kind = hints[name]
        out[name] = kind(**{field: values[field] for field in kind._fields}) if _is_block(kind) else values[name]
    return out


def key_of(word: str, known: dict[str, Option], study: str) -> str:
    """The key that a word means.

    Raises:
      UserError: none; with the key that was meant, if that can be guessed.
    """
    if word in known:
        return word
    for key, option in known.items():
        if any(isinstance(note, Also) and note.word == word for note in option.notes):
            return key
        if any(isinstance(note, Was) and note.word == word for note in option.notes):
            raise UserError(f"no key {word!r} for {study}; did you mean {key!r}?")
    raise UserError(f"no key {word!r} for {study}; {nearest(word, known)}")


def renamed(values: dict[str, Any], known: dict[str, Option], study: str) -> dict[str, Any]:
    """The values by their keys, other words for a key translated.

    Raises:
      UserError: as for `key_of`, or two words for one key.
    """
    out: dict[str, Any] = {}
    for word, value in values.items():
        key = key_of(word, known, study)
        if key in out:
            raise UserError(f"{key} for {study} is given twice, once as {word!r}")
        out[key] = value
    return out


def check(study: Callable[..., Any], name: str, values: dict[str, Any]) -> dict[str, Any]:
    """The complete keys of a study, with its defaults.

    Args:
      study: its function.
      name: of the study, for errors.
      values: what was set.

    Raises:
      UserError: an unknown key (with the nearest right one), a wrong type, a value out of range, a required key not set, a
        name that no function of the role has, or values that do not go together.
    """
    known, out = schema(study), {}
    values = renamed(values, known, name)
    for key, option in known.items():
        value = values.get(key, option.default)
        if value is REQUIRED or (value is None and option.default is REQUIRED):
            raise UserError(f"{name} needs {key}: set --config.{key}=...")
        out[key] = option.checked(f"{key}={value!r} for {name}", value)
    _check_blocks(study, out)
    for key, option in known.items():
        if option.overrides is not None:
            out[key] = option.overrides.checked(key, out[key], known)
            for variant, changes in out[key].items():
                try:
                    _check_blocks(study, {**out, **changes})
                except UserError as e:
                    raise UserError(f"{key}.{variant}: {e}") from None
    return out


def _check_blocks(study: Callable[..., Any], values: dict[str, Any]) -> None:
    for block in bind(study, values).values():
        if hasattr(block, "check"):
            block.check()


def check_block(block: Any) -> None:
    """The checks of a study's keys for one block of options, for those who call from Python.

    Raises:
      UserError: a wrong type, a value out of range, or values that do not go together.
    """
    for name, option in _block(type(block), block).items():
        option.checked(f"{name}={option.default!r}", option.default)
    if hasattr(block, "check"):
        block.check()


def meanings(study: Callable[..., Any]) -> dict[str, str]:
    """What docstrings say of every key, in the `Args` of the study and of its blocks."""
    blocks = {name: kind for name, kind in typing.get_type_hints(study).items() if _is_block(kind)}
    own = {key: text for key, text in _arguments(inspect.getdoc(study) or "").items() if key not in blocks}
    return {key: text for kind in blocks.values() for key, text in _arguments(inspect.getdoc(kind) or "").items()} | own


def _arguments(text: str) -> dict[str, str]:
    """{name: meaning} of a docstring's `Args`; names that share a line share its meaning."""
    inside = text.partition("\nArgs:\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in inside.splitlines():
        if line and not line.startswith("  "):
            break
        begun = re.match(r"  (\w+(?:, \w+)*): (.*)", line)
        if begun:
            names = begun[1].split(", ")
            found |= dict.fromkeys(names, begun[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
