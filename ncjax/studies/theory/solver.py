"""Minimisers of small problems: L-BFGS and gradient descent on pytrees, to be mapped over seeds and settings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from ncjax.core.types import Array, PyTree

Function = TypeVar("Function", bound=Callable[..., Any])


def in_double(function: Function) -> Function:
    """A function that runs in float64."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return wrapped  # pyright: ignore[reportReturnType] - it takes and returns the same


def lbfgs(loss: Callable[[PyTree], Array], start: PyTree, steps: int, tolerance: float = 1e-10) -> tuple[PyTree, Array]:
    """(minimiser, its loss) by optax's L-BFGS with its zoom line search, until the gradient's norm is below `tolerance`.

    Args:
      loss: a function of the parameters.
      start: parameters.
      steps: at most.
      tolerance: of the gradient's norm.
    """
    tx = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(state: tuple[PyTree, Any, Array]) -> tuple[PyTree, Any, Array]:
        params, opt, count = state
        value, gradient = value_and_grad(params, state=opt)
        updates, opt = tx.update(gradient, opt, params, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(params, updates), opt, count + 1

    def going(state: tuple[PyTree, Any, Array]) -> Array:
        _, opt, count = state
        norm = optax.tree.norm(optax.tree.get(opt, "grad"))
        return (count == 0) | ((count < steps) & (norm > tolerance))

    params, _, _ = jax.lax.while_loop(going, step, (start, tx.init(start), jnp.zeros((), int)))
    return params, loss(params)


def descent(
    loss: Callable[[PyTree], Array],
    start: PyTree,
    *,
    lr: PyTree | float,
    steps: int,
    log: Callable[[PyTree], Any] | None = None,
    every: int = 1,
) -> tuple[PyTree, Any]:
    """(parameters after so many steps of gradient descent, what `log` said of them every so often, the start first).

    Args:
      loss: a function of the parameters.
      start: parameters.
      lr: one rate, or a tree of them.
      steps: a multiple of `every`.
      log: of the parameters; None for nothing.
      every: steps between two.
    """
    rates = jax.tree.map(lambda _: lr, start) if isinstance(lr, (int, float)) else lr
    gradient = jax.grad(loss)

    def one(_: int, params: PyTree) -> PyTree:
        return jax.tree.map(lambda p, g, r: p - r * g, params, gradient(params), rates)

    def block(params: PyTree, _: None) -> tuple[PyTree, Any]:
        return jax.lax.fori_loop(0, every, one, params), None if log is None else log(params)

    return jax.lax.scan(block, start, None, length=steps // every)
