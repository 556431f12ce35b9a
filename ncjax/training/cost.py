"""What a training step costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ncjax import conv
from ncjax.core.types import Batch
from ncjax.training.loop import State


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
