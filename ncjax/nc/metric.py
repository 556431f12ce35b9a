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
from ncjax.core.inputs import named_inputs
from ncjax.core.resolve import own_name, unbound
from ncjax.core.types import Array
from ncjax.nc.geometry import Geometry, double, geometry
from ncjax.nc.projected import Look
from ncjax.nc.stats import ClassStats, check_stats

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
        if of_statistics:
            check_stats(*args[:1])

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
    text = (inspect.getdoc(unbound(function)) or own_name(function)).splitlines()[0]
    return text.rstrip(".")


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of inputs in what `metric` made of it, settings bound or not."""
    if isinstance(function, functools.partial):
        return functools.partial(plain(function.func), *function.args, **function.keywords)
    return getattr(function, "of", function)


def asks_for(function: Callable[..., Any]) -> dict[str, bool]:
    """The inputs that a metric names, and whether it cannot do without; its settings are none.

    Raises:
      UserError: it asks for what does not exist, or both for what is computed on the host and for what is not.
    """
    name = own_name(function)
    asked = named_inputs(plain(function), f"metric {name}", INPUTS)
    host, others = ([key for key in asked if (key in ON_THE_HOST) == on] for on in (True, False))
    if host and others:
        raise UserError(f"metric {name} asks for {host[0]}, which is on the host, and {others[0]}, which is not; not both")
    return asked


def applied(functions: dict[str, Callable[..., Array]], inputs: dict[str, Any]) -> dict[str, Array]:
    """The metrics that the inputs at hand allow, by name.

    Args:
      functions: metrics, or plain functions of the inputs that they name.
      inputs: by name; None where something is not there.

    Raises:
      UserError: as for `asks_for`.
    """
    found = {}
    for name, public in functions.items():
        asked = asks_for(public)
        if any(needed and inputs.get(key) is None for key, needed in asked.items()):
            continue
        try:
            found[name] = plain(public)(**{k: inputs[k] for k in asked if inputs.get(k) is not None})
        except UserError:  # it does not apply
            continue
    return found
