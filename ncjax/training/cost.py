"""What a training step costs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from ncjax import conv
from ncjax.core.types import Batch
from ncjax.training.loop import State

COMPILED = "/jax/core/compile/backend_compile_duration"  # what JAX calls the seconds of a compilation, or of its retrieval


class Spent:
    """Seconds of a run, by what they went into; compiling happens inside the others."""

    def __init__(self):
        self.seconds = {"training": 0.0, "measuring": 0.0, "saving": 0.0, "compiling": 0.0}

    @contextlib.contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Counts what happens inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - started

    @contextlib.contextmanager
    def with_compiling(self) -> Iterator[None]:
        """Counts what is compiled inside."""

        def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
            self.seconds["compiling"] += duration_secs if event == COMPILED else 0.0

        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)


def flops(step: Callable[..., Any], state: State, batch: Batch, compiled: Any = None) -> float | None:
    """Of one step, by XLA's cost analysis; None where it does not say.

    Args:
      step: from `make_step`.
      state, batch: arrays or their shapes.
      compiled: the step compiled for them, where it is. XLA does not see into the convolutions of oneDNN and cuDNN: where
        those run, FLOPs are those of the step as XLA would do it, before optimisation.
    """
    if conv.implementation() == "onednn" or jax.default_backend() == "gpu":
        with conv.as_xla():
            # A function of its own: JAX would hand out the trace of the step that ran, with foreign calls in it.
            found = jax.jit(lambda *given: step.__wrapped__(*given)).lower(state, batch).cost_analysis()
    else:
        found = (compiled or step.lower(state, batch)).cost_analysis()
    return (found or {}).get("flops")
