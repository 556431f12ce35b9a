"""A study's signature is its schema. Options that belong together are one NamedTuple, whose fields are the keys.

    def run(*, run: Run, training: Training = Training(epochs=5), layer: str | None = None) -> dict: ...

has the keys of `Training`, with five epochs by default, and `layer`. `Annotated` says what a type does not:

    loss: Annotated[str, FUNCTION]              the name of a function, looked up before anything runs
    init: Annotated[str, Also("weights")]       another word for the key, where a study has no such key of its own
    projection_layers: Annotated[int, Was("head")]    the word of earlier versions, of which a user is reminded
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ncjax.core.errors import UserError, nearest
from ncjax.core.resolve import resolve

REQUIRED = inspect.Parameter.empty


class Also(NamedTuple):
    """Another word for a key."""

    word: str


class Was(NamedTuple):
    """What a key was called before."""

    word: str


class _Function(NamedTuple):
    """Marks names of functions."""


FUNCTION = _Function()


class Option(NamedTuple):
    """One key: its type, its default (`REQUIRED` for none), and what its annotation says beside the type."""

    hint: Any
    default: Any
    notes: tuple[Any, ...]

    @property
    def is_function(self) -> bool:
        """Whether values are names of functions."""
        return any(isinstance(note, _Function) for note in self.notes)


def _is_block(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")


def _option(hint: Any, default: Any) -> Option:
    if typing.get_origin(hint) is typing.Annotated:
        inner, *notes = typing.get_args(hint)
        return Option(inner, default, tuple(notes))
    return Option(hint, default, ())


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


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def kinds(hint: Any) -> tuple[type, ...]:
    """The types that a hint allows."""
    parts = typing.get_args(hint) if _is_union(hint) else (hint,)
    return tuple(typing.get_origin(p) or p for p in parts)


def element(hint: Any) -> Any:
    """The type of a list's elements, or None for other types."""
    parts = typing.get_args(hint) if _is_union(hint) else (hint,)
    return next((typing.get_args(p)[0] for p in parts if typing.get_origin(p) is list), None)


def accepts(hint: Any, value: Any) -> bool:
    """Whether a value is of the type; whole numbers pass for floats."""
    if isinstance(value, bool):
        return bool in kinds(hint)
    if isinstance(value, list | tuple) and element(hint) is not None:
        return all(accepts(element(hint), x) for x in value)
    return isinstance(value, kinds(hint)) or (float in kinds(hint) and isinstance(value, int))


def describe(hint: Any) -> str:
    """A type in words."""
    words = (
        "None" if k is type(None) else f"list of {describe(element(hint))}" if k is list else k.__name__
        for k in kinds(hint)
    )
    return " or ".join(words)


def check(study: Callable[..., Any], name: str, values: dict[str, Any]) -> dict[str, Any]:
    """The complete keys of a study, with its defaults.

    Args:
      study: its function.
      name: of the study, for errors.
      values: what was set.

    Raises:
      UserError: an unknown key (with the nearest right one), a wrong type, a required key not set, or a name that no
        function has.
    """
    known, out = schema(study), {}
    values = renamed(values, known, name)
    for key, option in known.items():
        value = values.get(key, option.default)
        if value is REQUIRED or (value is None and option.default is REQUIRED):
            raise UserError(f"{name} needs {key}: set --config.{key}=...")
        if not accepts(option.hint, value):
            raise UserError(f"{key}={value!r} for {name}: expected {describe(option.hint)}, got {type(value).__name__}")
        out[key] = _converted(option.hint, value)
        if option.is_function:
            check_functions(key, value)
    return out


def check_functions(key: str, value: str | Iterable[str] | None) -> None:
    """Looks names of functions up, before any data is touched.

    Raises:
      UserError: no such function; the line names the key.
    """
    for text in [value] if isinstance(value, str) else value or ():
        try:
            resolve(text)
        except UserError as e:
            raise UserError(f"{key}={text}: {e}") from None


def _converted(hint: Any, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [float(x) if element(hint) is float else x for x in value]
    return float(value) if float in kinds(hint) and type(value) is int else value
