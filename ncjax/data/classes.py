"""Classes as a config names them: a subset, or groups that are told apart no longer."""

from __future__ import annotations

import re

from ncjax.core.errors import UserError


def parse_classes(text: str, count: int) -> list[int]:
    """`"0-4,7"` -> [0, 1, 2, 3, 4, 7].

    Raises:
      UserError: not of that form, or outside [0, count), or fewer than two classes.
    """
    ranges = ranges_of(text)
    if max(last for _, last in ranges) >= count:
        raise UserError(f"classes={text!r}: the set has classes 0-{count - 1}")
    chosen = sorted({k for first, last in ranges for k in range(first, last + 1)})
    if len(chosen) < 2:
        raise UserError(f"classes={text!r}: one class alone; at least two are needed")
    return chosen


def ranges_of(text: str, what: str | None = None) -> list[tuple[int, int]]:
    """`"0-4,7"` -> [(0, 4), (7, 7)].

    Args:
      text: to read.
      what: it is, in errors.

    Raises:
      UserError: not of that form.
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18}))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"{what or f'classes={text!r}'}: expected numbers and ranges that rise, such as 0-4,7")
        found.append((int(match[1]), int(match[2] or match[1])))
    return found


def parse_superclasses(text: str, count: int) -> list[list[int]]:
    """`"0,2-4/1"` -> [[0, 2, 3, 4], [1]].

    Raises:
      UserError: not of that form, a class in no group or in two, or fewer than two groups.
    """
    ranges = [ranges_of(part, f"superclasses={text!r}") for part in text.split("/")]
    if (largest := max(last for many in ranges for _, last in many)) >= count:
        raise UserError(f"superclasses={text!r}: the set has classes 0-{count - 1}, and {largest} is none of them")
    groups = [[k for first, last in many for k in range(first, last + 1)] for many in ranges]
    named = sorted(k for group in groups for k in group)
    if twice := [k for k in named if named.count(k) > 1]:
        raise UserError(f"superclasses={text!r}: class {twice[0]} is in two groups")
    if absent := set(range(count)) - set(named):
        raise UserError(f"superclasses={text!r}: class {min(absent)} is in no group")
    if len(groups) < 2:
        raise UserError(f"superclasses={text!r}: one group alone; at least two are needed")
    return groups
