"""Optimisers and schedules. Durations come in epochs and become steps here, and only here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ncjax.core.errors import UserError
from ncjax.core.roles import DECAY, OPTIMIZER, SCHEDULE, resolve
from ncjax.core.types import Array, PyTree
from ncjax.core.values import LARGEST, NOT_NEGATIVE, PART, POSITIVE, SHARE


class Optimizer(NamedTuple):
    """`tx` updates the trainable leaves of a masked tree (see `trees.split`); `lr_at(step)` is its learning rate."""

    tx: optax.GradientTransformation
    lr_at: optax.Schedule


def sgd(
    lr: optax.Schedule,
    weight_decay: float,
    decay_mask: Callable,
    momentum: Annotated[float, PART] = 0.9,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """SGD with momentum; weight decay is added to the gradient, as in the recipes of the field."""
    return optax.chain(optax.add_decayed_weights(weight_decay, decay_mask), optax.sgd(lr, momentum, nesterov))


def adamw(
    lr: optax.Schedule,
    weight_decay: float,
    decay_mask: Callable,
    b1: Annotated[float, PART] = 0.9,
    b2: Annotated[float, PART] = 0.999,
) -> optax.GradientTransformation:
    """AdamW: decoupled weight decay."""
    return optax.adamw(lr, b1, b2, weight_decay=weight_decay, mask=decay_mask)


def cosine(lr: float, steps: int, final: Annotated[float, SHARE] = 0.0) -> optax.Schedule:
    """Cosine from `lr` to `final * lr`."""
    return optax.cosine_decay_schedule(lr, max(steps, 1), final)


def step(
    lr: float,
    steps: int,
    factor: Annotated[float, POSITIVE] = 0.1,
    at: Annotated[tuple[float, ...], SHARE] = (0.5, 0.75),
) -> optax.Schedule:
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


class Start(NamedTuple):
    """Where the parameters began, kept in the optimiser's state so that a resumed run knows it."""

    params: PyTree


def towards_start(strength: Any) -> optax.GradientTransformation:
    """Adds strength * (params - starting params) to the gradient (L2-SP; Li et al., 2018, eq. 3)."""

    def init(params: PyTree) -> Start:
        return Start(jax.tree.map(jnp.array, params))

    def update(gradient: PyTree, state: Start, params: PyTree) -> tuple[PyTree, Start]:
        return jax.tree.map(lambda g, p, p0: g + strength * (p - p0), gradient, params, state.params), state

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def by_block(factors: dict[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of each block (the first key of the parameters) by its factor."""

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        return {block: jax.tree.map(lambda u, f=factors[block]: u * f, tree) for block, tree in updates.items()}, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def with_hyperparameters(opt_state: PyTree, *, lr: float, weight_decay: float) -> PyTree:
    """The optimiser's state with another peak learning rate and weight decay: same program, no compilation."""
    return optax.tree.set(opt_state, lr=jnp.float32(lr), weight_decay=jnp.float32(weight_decay))


class Optim(NamedTuple):
    """How leaves move.

    Args:
      optimizer: `optim.sgd` or `optim.adamw`, with arguments if wanted: `optim.sgd(nesterov=True)`.
      schedule: `optim.cosine`, `optim.step(factor=0.1)` or `optim.constant`, after the warm-up.
      lr: peak learning rate.
      weight_decay: coefficient.
      decay: which leaves decay, `optim.everything` or `optim.kernels`.
      warmup_epochs: linear warm-up: of w steps the i-th has i / (w + 1) of the peak.
      clip: largest global gradient norm over the trainable leaves; 0 for none.
    """

    optimizer: Annotated[str, OPTIMIZER] = "optim.sgd"
    schedule: Annotated[str, SCHEDULE] = "optim.cosine"
    lr: Annotated[float, POSITIVE] = 0.05
    weight_decay: Annotated[float, NOT_NEGATIVE] = 5e-4
    decay: Annotated[str, DECAY] = "optim.everything"
    warmup_epochs: Annotated[float, NOT_NEGATIVE] = 0.0
    clip: Annotated[float, NOT_NEGATIVE] = 0.0

    def check_length(self, epochs: int) -> None:
        """Refuses a warm-up that is longer than the run."""
        if self.warmup_epochs > epochs:
            raise UserError(f"warmup_epochs={self.warmup_epochs:g}: expected at most epochs={epochs}")


def build(
    options: Optim,
    mask: PyTree,
    steps_per_epoch: int,
    epochs: int,
    factors: dict[str, float] | None = None,
    anchored: bool = False,
) -> Optimizer:
    """An optimiser that touches, and keeps state for, only the leaves where `mask` is True.

    Args:
      options: what moves how.
      mask: tree of booleans over the parameters, keyed by block.
      steps_per_epoch, epochs: length of the run.
      factors: learning rate of each block as a multiple of `lr`; None for 1.
      anchored: weight decay pulls every block but the head to where it started, and is part of the gradient there.

    Raises:
      UserError: no such optimiser, a learning rate that is not positive, or a warm-up longer than the run.
    """
    lr, weight_decay, clip, warmup_epochs = options.lr, options.weight_decay, options.clip, options.warmup_epochs
    if lr <= 0 or epochs < 1:
        raise UserError(f"lr={lr}, epochs={epochs}: expected lr > 0 and epochs >= 1")
    options.check_length(epochs)
    if epochs * steps_per_epoch > LARGEST:
        raise UserError(f"epochs={epochs}: {epochs * steps_per_epoch:,} steps in all, expected at most {LARGEST:,}")
    warmup = round(warmup_epochs * steps_per_epoch)
    shape = resolve(options.schedule, SCHEDULE)(1.0, epochs * steps_per_epoch - warmup)
    if warmup:
        shape = optax.join_schedules([optax.linear_schedule(1 / (warmup + 1), 1.0, warmup), shape], [warmup])
    decays, method = resolve(options.decay, DECAY), resolve(options.optimizer, OPTIMIZER)

    def decaying(head: bool) -> Callable[[PyTree], PyTree]:
        return lambda params: {
            b: jax.tree.map(lambda d, mine=(b == "head") == head: d and mine, tree) for b, tree in decays(params).items()
        }

    def make(lr: Array, weight_decay: Array) -> optax.GradientTransformation:
        tx = method(lambda step: lr * shape(step), weight_decay, decaying(head=True) if anchored else decays)
        parts = [optax.clip_by_global_norm(clip)] if clip > 0 else []
        parts += [optax.masked(towards_start(weight_decay), decaying(head=False))] if anchored else []
        return optax.chain(*parts, tx, *([by_block(factors)] if factors else []))

    # Learning rate and weight decay live in the state, so that a grid over them is one program.
    tx = optax.inject_hyperparams(make)(lr=lr, weight_decay=weight_decay)
    tx = optax.selective_transform(tx, freeze_mask=jax.tree.map(lambda m: not m, mask))
    return Optimizer(tx, lambda step: lr * shape(step))
