"""What a value may be: its type, and the range that its annotation names.

Keys of studies and settings of functions that configs name are annotated alike, and checked alike:

    lr: Annotated[float, POSITIVE]
    shots: Annotated[list[int], NATURAL, Items(least=1, distinct=True)]     the range is that of every item
    cache: Annotated[str, OneOf("auto", "off")]

Every number is finite in float32, whatever its range.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from ncjax.core.errors import UserError

LARGEST = 2**31 - 1  # counts are int32 on the device
FLOAT32_MAX, FLOAT32_TINY = 3.4028234e38, 1.1754944e-38


class Range(NamedTuple):
    """Numbers from `low` to `high`, the ends included unless told otherwise."""

    words: str
    low: float = -math.inf
    high: float = math.inf
    below: bool = False  # without `high` itself

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range."""
        return value >= self.low and (value < self.high if self.below else value <= self.high)


def between(low: int, high: int = LARGEST) -> Range:
    """Whole numbers from `low` to `high`."""
    return Range(f"from {low}" if high == LARGEST else f"from {low} to {high}", low, high)


POSITIVE = Range("more than 0", FLOAT32_TINY)
NOT_NEGATIVE = Range("0 or more", 0)
SHARE = Range("from 0 to 1", 0, 1)
POSITIVE_SHARE = Range("more than 0, up to 1", FLOAT32_TINY, 1)
PART = Range("0 or more, below 1", 0, 1, below=True)
COUNT = between(1)
NATURAL = between(0)
SEED = between(0, 2**32 - 1)
PIXELS = between(1, 16384)
CHANNELS = between(1, 1 << 16)  # widths of layers
DEPTH = between(1, 1000)


class OneOf:
    """One of these words."""

    def __init__(self, *words: str):
        self.allowed = words

    @property
    def words(self) -> str:
        """As an error prints them."""
        return "one of " + ", ".join(self.allowed)

    def holds(self, value: Any) -> bool:
        """Whether it is."""
        return value in self.allowed


class _Dtype(OneOf):
    """A type to compute in."""

    def holds(self, value: Any) -> bool:
        """float64 where JAX has it; without, it would silently be float32."""
        import jax  # not above: `core.memory.huge_pages` comes before JAX

        return value in self.allowed or (value == "float64" and bool(jax.config.read("jax_enable_x64")))

    @property
    def words(self) -> str:
        """As an error prints them."""
        return super().words + ", or float64 where JAX_ENABLE_X64=1 is set"


DTYPE = _Dtype("float32", "bfloat16", "float16")


class Items(NamedTuple):
    """How many a list has, and whether one may stand in it twice."""

    least: int = 0
    distinct: bool = False


def is_union(hint: Any) -> bool:
    """Whether a hint is `A | B`."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type of an annotation, and what `Annotated` says beside it."""
    if typing.get_origin(hint) is typing.Annotated:
        inner, *notes = typing.get_args(hint)
        return inner, tuple(notes)
    return hint, ()


def kinds(hint: Any) -> tuple[Any, ...]:
    """The types that a hint allows."""
    parts = typing.get_args(hint) if is_union(hint) else (hint,)
    return tuple(typing.get_origin(p) or p for p in parts)


def element(hint: Any) -> Any:
    """The type of the elements of a list or tuple, or None for other types."""
    parts = typing.get_args(hint) if is_union(hint) else (hint,)
    return next((typing.get_args(p)[0] for p in parts if typing.get_origin(p) in (list, tuple)), None)


def accepts(hint: Any, value: Any) -> bool:
    """Whether a value is of the type; whole numbers pass for floats."""
    if hint is Any:
        return True
    if isinstance(value, bool):
        return bool in kinds(hint)
    if isinstance(value, list | tuple) and element(hint) is not None:
        return all(accepts(element(hint), x) for x in value)
    known = tuple(k for k in kinds(hint) if isinstance(k, type))
    return len(known) < len(kinds(hint)) or isinstance(value, known) or (float in known and isinstance(value, int))


def describe(hint: Any) -> str:
    """A type in words."""

    def word(kind: Any) -> str:
        if kind in (list, tuple) and element(hint) is not None:
            return f"list of {describe(element(hint))}"
        return "None" if kind is type(None) else str(getattr(kind, "__name__", kind))

    return " or ".join(map(word, kinds(hint)))


def limits(notes: Sequence[Any]) -> str:
    """The ranges that an annotation names, in words; "" for none."""
    return ", ".join(note.words for note in notes if isinstance(note, Range | OneOf))


def fault(hint: Any, notes: Sequence[Any], value: Any) -> str | None:
    """What is wrong with a value, as "expected ..."; None where nothing is."""
    if not accepts(hint, value):
        return f"expected {describe(hint)}, got {type(value).__name__}"
    if value is None:
        return None
    many: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    real = float in (*kinds(hint), *kinds(element(hint)))
    for one in many:
        if real and isinstance(one, int | float) and not abs(one) <= FLOAT32_MAX:
            return f"expected finite numbers (at most {FLOAT32_MAX:.1e} in size)"
        for note in notes:
            if isinstance(note, Range | OneOf) and not isinstance(one, bool) and not note.holds(one):
                return f"expected {note.words}" + (f", not {one!r}" if many != [value] else "")
    for note in notes:
        if isinstance(note, Items) and len(many) < note.least:
            return f"expected at least {note.least}"
        twice = [x for x in many if many.count(x) > 1]
        if isinstance(note, Items) and note.distinct and twice:
            return f"{twice[0]!r} stands there twice"
    return None


Kind = TypeVar("Kind")


def record(kind: type[Kind], found: Any, source: object) -> Kind:
    """A NamedTuple from what was read, its fields in their types; lists become tuples where the field is one.

    Args:
      kind: the NamedTuple.
      found: what was read, a dictionary.
      source: its name in errors.

    Raises:
      UserError: not a dictionary, a field that is missing, of another type, or that the kind does not have.
    """
    if not isinstance(found, dict):
        raise UserError(f"{source} holds {type(found).__name__}, expected an object")
    hints, defaults = typing.get_type_hints(kind, include_extras=True), kind._field_defaults  # type: ignore[attr-defined]
    for name in hints:
        if name not in found and name not in defaults:
            raise UserError(f"{source} lacks {name!r}; it may be damaged")
    for name, value in found.items():
        if name not in hints:
            raise UserError(f"{source} holds {name!r}, which does not belong there")
        hint, notes = split(hints[name])
        wrong = fault(hint, notes, value)
        if wrong is None and isinstance(value, list | tuple) and element(hint) is None:
            wrong = f"expected {describe(hint)}, got a list"
        if wrong is not None:
            raise UserError(f"{source}: {name}: {wrong}; it may be damaged")
    kept = {k: tuple(v) if isinstance(v, list) and tuple in kinds(split(hints[k])[0]) else v for k, v in found.items()}
    return kind(**kept)
