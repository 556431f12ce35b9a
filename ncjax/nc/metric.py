"""What a collapse metric is: one function of the inputs that it names, and everything else follows from it.

A metric is a function in float64. It names what it needs by parameter, without a default if it cannot do without:

    g            `Geometry`: class means, centred, and the directions they span
    stats        `ClassStats` in float64
    look         second look at the features, in the frame of `stats`
    about        `About`: other class means, and a look at these features from there
    weight       [K, D] the linear classifier
    angles       [R] principal angles between the spans of class means and classifier
    outside      [D] mean of out-of-distribution features, or [M, D] the features
    spectrum     `Spectrum` of all features; where it is asked for

and, for what is computed on the host in NumPy:

    decisions    the look whose decisions count: that of `about`, else `look`
    features, labels   [N, D] and [N] themselves; where the spectrum is asked for

The first line of its docstring is what the report prints as its meaning. Where it does not apply it raises `UserError`,
and the report leaves it out. A metric of a user's own is any such function: `nc.measure(..., metrics=[function])`, or
`metrics=` in a config.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.nc.geometry import Geometry, double, geometry
from ncjax.nc.projected import Look
from ncjax.nc.stats import ClassStats

ON_THE_HOST = ("decisions", "features", "labels")
INPUTS = ("g", "stats", "look", "about", "weight", "angles", "outside", "spectrum", *ON_THE_HOST)


class About(NamedTuple):
    """The class means of another set, and what features look like from there."""

    g: Geometry
    stats: ClassStats
    look: Look


def metric(function: Callable[..., Array]) -> Callable[..., Array]:
    """Makes a metric callable on class statistics too, in their own dtype: `nc2(stats)`, `nc3(stats, weight)`.

    The function itself stays at hand as `.of`, for callers that know the geometry. `weighting` may be given by keyword.
    """
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    given = [p.name for p in named if p.name not in ("g", "stats")]
    of_statistics = len(given) < len(named)

    @functools.wraps(function)
    def public(*args: Any, weighting: str = "class", **options: Any) -> Array:
        def compute(*args: Any) -> Array:
            if not of_statistics:
                return function(**dict(zip(given, args, strict=False)), **options)
            stats, known = args[0], dict(zip(given, args[1:], strict=False))
            if any(p.name == "stats" for p in named):
                known["stats"] = stats
            if any(p.name == "g" for p in named):
                known["g"] = geometry(stats, weighting)
            return function(**known, **options)

        return double(compute)(*args)

    del public.__wrapped__  # its arguments are not the function's
    public.of = function  # type: ignore[attr-defined]
    return public


def meaning(function: Callable[..., Any]) -> str:
    """The first line of a metric's docstring, or its name."""
    text = (inspect.getdoc(function) or function.__name__).splitlines()[0]
    return text.rstrip(".")


def asks_for(function: Callable[..., Any]) -> frozenset[str]:
    """The inputs that a metric names."""
    parameters = inspect.signature(getattr(function, "of", function)).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


def applied(functions: dict[str, Callable[..., Array]], inputs: dict[str, Any]) -> dict[str, Array]:
    """The metrics that the inputs at hand allow, by name.

    Args:
      functions: metrics, or plain functions of the inputs that they name.
      inputs: by name; None where something is not there.

    Raises:
      UserError: a function names an input that does not exist.
    """
    found = {}
    for name, public in functions.items():
        function = getattr(public, "of", public)
        wanted = {}
        for p in inspect.signature(function).parameters.values():
            if p.kind is not p.POSITIONAL_OR_KEYWORD:
                continue
            if p.name not in INPUTS:
                raise UserError(f"metric {name} asks for {p.name!r}, which does not exist; inputs: {', '.join(INPUTS)}")
            if inputs.get(p.name) is not None or p.default is p.empty:
                wanted[p.name] = inputs.get(p.name)
        if any(x is None for x in wanted.values()):
            continue
        try:
            found[name] = function(**wanted)
        except UserError:  # it does not apply
            continue
    return found
