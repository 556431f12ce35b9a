"""Collapse in one's own training loop, logged where everything else is.

>>> watch = nc.watch(SummaryWriter("logs"))      # or wandb.init(...), trackio.init(...), or a function (values, step)
>>> for epoch in range(epochs):
...     watch(features, labels, step=epoch)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ncjax.core.errors import UserError
from ncjax.nc.measure import measure
from ncjax.nc.report import Report

LOGGED = ("nc1", "nc1_over_floor", "cdnv", "trace_ratio", "nc2", "nc3", "nc4", "accuracy")


def sink_of(writer: Any) -> Callable[[dict[str, float], int], object]:
    """`(values by name, step)` of a TensorBoard writer (`add_scalar`), a W&B or Trackio run (`log`), or a function.

    Raises:
      UserError: it is none of these.
    """
    if hasattr(writer, "add_scalar"):

        def add(values: dict[str, float], step: int) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        return add
    if callable(getattr(writer, "log", None)):

        def log(values: dict[str, float], step: int) -> None:
            writer.log(values, step=step)

        return log
    if callable(writer):
        return writer
    raise UserError(
        f"writer: got {type(writer).__name__}, expected a TensorBoard writer, a W&B or Trackio run, or a function of "
        "(values, step)"
    )


def watch(writer: Any, *, prefix: str = "nc/", metrics: Sequence[str] = LOGGED) -> Callable[..., Report]:
    """A function `(features, labels, *, step, **options) -> Report` that measures and logs.

    Args:
      writer: a TensorBoard `SummaryWriter`, what `wandb.init` or `trackio.init` returns, or a function of (values, step).
      prefix: before each name.
      metrics: what is logged, where it is defined: names of `Report.scalars`.

    Raises:
      UserError: the writer is no such thing; and what `measure` raises, whose options are taken.
    """
    sink = sink_of(writer)

    def look(features: Any, labels: Any, *, step: int, **options: Any) -> Report:
        found = measure(features, labels, **options)
        values = found.scalars()
        sink({f"{prefix}{name}": values[name] for name in metrics if name in values}, step)
        return found

    return look
