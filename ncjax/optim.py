"""Optimisers and schedules. Durations come in epochs and become steps here, and only here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ncjax.lookup import resolve
from ncjax.types import PyTree, UserError


class Optimizer(NamedTuple):
    """`tx` updates the trainable leaves of a masked tree (see `trees.split`); `lr_at(step)` is its learning rate."""

    tx: optax.GradientTransformation
    lr_at: optax.Schedule


def sgd(lr: optax.Schedule, weight_decay: float, decay_mask: Callable, momentum: float = 0.9,
        nesterov: bool = False) -> optax.GradientTransformation:
    """SGD with momentum; weight decay is added to the gradient, as in the recipes of the field."""
    return optax.chain(optax.add_decayed_weights(weight_decay, decay_mask), optax.sgd(lr, momentum, nesterov))


def adamw(lr: optax.Schedule, weight_decay: float, decay_mask: Callable, b1: float = 0.9,
          b2: float = 0.999) -> optax.GradientTransformation:
    """AdamW: decoupled weight decay."""
    return optax.adamw(lr, b1, b2, weight_decay=weight_decay, mask=decay_mask)


def cosine(lr: float, steps: int, final: float = 0.0) -> optax.Schedule:
    """Cosine from `lr` to `final * lr`."""
    return optax.cosine_decay_schedule(lr, max(steps, 1), final)


def step(lr: float, steps: int, factor: float = 0.1, at: tuple[float, ...] = (0.5, 0.75)) -> optax.Schedule:
    """`lr` times `factor` after each of the fractions `at` of the run."""
    return optax.piecewise_constant_schedule(lr, {round(fraction * steps): factor for fraction in at})


def constant(lr: float, steps: int) -> optax.Schedule:
    """`lr` throughout."""
    return optax.constant_schedule(lr)


def kernels(params: PyTree) -> PyTree:
    """Decay mask: leaves with two or more axes, so no biases and no normalisation scales."""
    return jax.tree.map(lambda x: jnp.ndim(x) >= 2, params)


def everything(params: PyTree) -> PyTree:
    """Decay mask: every leaf, as in the recipes of the neural-collapse literature."""
    return jax.tree.map(lambda _: True, params)


def build(
    mask: PyTree,
    steps_per_epoch: int,
    epochs: int,
    *,
    optimizer: str = "optim.sgd",
    schedule: str = "optim.cosine",
    lr: float = 0.05,
    weight_decay: float = 5e-4,
    decay: str = "optim.everything",
    warmup_epochs: float = 0.0,
    clip: float = 0.0,
) -> Optimizer:
    """An optimiser that touches, and keeps state for, only the leaves where `mask` is True.

    Args:
      mask: tree of booleans over the parameters.
      steps_per_epoch, epochs: length of the run.
      optimizer: `optim.sgd` or `optim.adamw`, with arguments if wanted: `optim.sgd(nesterov=True)`.
      schedule: `optim.cosine`, `optim.step(factor=0.1)` or `optim.constant`, after the warm-up.
      lr: peak learning rate.
      weight_decay: coefficient.
      decay: which leaves decay, `optim.everything` or `optim.kernels`.
      warmup_epochs: linear warm-up from 0.
      clip: largest global gradient norm over the trainable leaves; 0 for none.
    """
    if lr <= 0 or epochs < 1 or warmup_epochs < 0 or warmup_epochs > epochs:
        raise UserError(f"lr={lr}, epochs={epochs}, warmup_epochs={warmup_epochs}: expected lr > 0, epochs >= 1 and "
                        "0 <= warmup_epochs <= epochs")
    warmup = round(warmup_epochs * steps_per_epoch)
    lr_at = resolve(schedule)(lr, epochs * steps_per_epoch - warmup)
    if warmup:
        lr_at = optax.join_schedules([optax.linear_schedule(0.0, lr, warmup), lr_at], [warmup])
    tx = resolve(optimizer)(lr_at, weight_decay, resolve(decay))
    tx = optax.chain(optax.clip_by_global_norm(clip), tx) if clip > 0 else tx
    return Optimizer(optax.selective_transform(tx, freeze_mask=jax.tree.map(lambda m: not m, mask)), lr_at)
