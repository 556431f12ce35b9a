"""What recognisers and layouts of all families are made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ncjax.core.types import Model
from ncjax.networks.weights.layouts import Preprocess, Shapes

Recogniser = Callable[[Shapes], str | None]


def count(shapes: Shapes, pattern: str) -> int:
    """Distinct first groups of a pattern among the names."""
    return len({m.group(1) for name in shapes if (m := re.match(pattern, name))})


def fixed(model: str, *names: str) -> Recogniser:
    """Recognises one network by names that it alone has."""
    return lambda shapes: model if all(n in shapes for n in names) else None


def has(name: str, recognise: Recogniser) -> Recogniser:
    """`recognise`, for files with a tensor of that name."""
    return lambda shapes: recognise(shapes) if name in shapes else None


def only(wanted: str, recognise: Recogniser) -> Recogniser:
    """`recognise`, for one kind of network."""
    return lambda shapes: found if wanted in (found := recognise(shapes) or "") else None


def constant(*args: Any, **kwargs: Any) -> Callable[[str, Shapes], Preprocess]:
    """The same preprocessing whatever the network."""
    return lambda model, shapes: Preprocess(*args, **kwargs)


def numbered(names: Sequence[str]) -> Callable[[Model], dict[str, str]]:
    """Blocks that are called by names in order, from the first on."""
    return lambda model: dict(zip(model.blocks, names, strict=False))
