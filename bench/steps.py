"""ncjax's side of the training benchmarks: whole training steps on random images, compiled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ncjax import conv, data, optim
from ncjax.core import mesh
from ncjax.core.roles import MODEL, resolve
from ncjax.losses import cross_entropy
from ncjax.training import loop
from ncjax.tuning import plans

Job = Callable[[], None]


class Made(NamedTuple):
    """A contender."""

    job: Job  # some training steps
    parameters: int
    compile_seconds: float = 0.0


def ours(name: str, batch: int, steps: int, dtype: str, *, side: int, classes: int, xla: bool = True) -> Made:
    """`steps` steps of SGD with momentum and weight decay over a network named as in a config."""
    with conv.as_xla() if xla else contextlib.nullcontext():
        step, state, following, parameters = _prepared(name, batch, steps, dtype, side, classes)
        started = time.perf_counter()
        compiled = step.lower(state, following(state)).compile()
        seconds = time.perf_counter() - started
    held = [state]

    def run() -> None:
        for _ in range(steps):
            held[0], _ = compiled(held[0], following(held[0]))
        jax.block_until_ready(held[0])

    return Made(run, parameters, seconds)


def flops(name: str, batch: int, *, side: int, classes: int) -> float:
    """Of one step, by XLA's analysis of the program before optimisation: what any library has to compute."""
    step, state, following, _ = _prepared(name, batch, 1, "float32", side, classes)
    with conv.as_xla():
        return step.lower(state, following(state)).cost_analysis()["flops"]


def _prepared(
    name: str, batch: int, steps: int, dtype: str, side: int, classes: int
) -> tuple[Any, loop.State, Callable[[loop.State], Any], int]:
    """(step, first state, the next batch for a state, parameters)."""
    x = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    split = data.Split(x, np.arange(batch, dtype=np.int32) % classes)
    names = tuple(map(str, range(classes)))
    dataset = data.Dataset("random", {"train": split}, names, x.shape[1:], (0.5,) * 3, (0.25,) * 3, 0, 1 << 34)
    model, devices = resolve(name, MODEL)(num_classes=classes, dtype=dtype), mesh.make()
    plan = plans.everything(model, jax.jit(model.init, static_argnums=1)(jax.random.key(0), dataset.image_shape))
    source = data.batches_of(split, dataset, devices, batch_size=batch)
    tx, _ = optim.build(optim.Optim(lr=1e-3, schedule="optim.constant"), plan.mask, steps, 1)
    state = loop.init_state(plan.variables, tx, plan.mask, jax.random.key(0), devices)
    step = loop.make_step(model.apply, cross_entropy(), tx, plan.mask, plan.live, devices, ragged=source.ragged)
    fetch, item = loop.make_fetch(source, devices), next(iter(source.items(np.arange(batch))))
    return step, state, lambda state: fetch(state, source.arrays, item), plan.share()[1]
