"""`jit` for programs that measure or solve, which run a few times and are not to take minutes to compile."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.core import Tracer

Function = TypeVar("Function", bound=Callable[..., Any])

# For every product in float32 XLA compiles and times dozens of Triton kernels on a GPU. On an H200 the first `nc.measure`
# at D = 2048, K = 100 took 47.6 s with them and 4.5 s by cuBLAS alone, each one after it 22 ms with either.
OPTIONS = {"gpu": {"xla_gpu_enable_triton_gemm": False}}
# On a CPU, loops over features are a tenth faster for the compiler's newer way to write fused ones, which takes it twice as
# long. What works on class means alone, and is compiled for every width of a network, is better off without.
SMALL_OPTIONS = {"cpu": {"xla_cpu_use_fusion_emitters": False}}


def jit(function: Function, *, small: bool = False, **kwargs: Any) -> Function:
    """`jax.jit` with the options above; within another program, plain.

    Args:
      function: what to compile, when it is first called.
      small: whether it works on class means alone, not on features.
      **kwargs: of `jax.jit`.
    """

    def options() -> dict[str, Any] | None:
        backend = jax.default_backend()
        return {**OPTIONS.get(backend, {}), **(SMALL_OPTIONS.get(backend, {}) if small else {})} or None

    @functools.cache
    def compiled(inside: bool) -> Callable[..., Any]:
        return jax.jit(function, compiler_options=None if inside else options(), **kwargs)

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        inside = any(isinstance(x, Tracer) for x in jax.tree.leaves((args, named)))
        return compiled(inside)(*args, **named)

    return call  # pyright: ignore[reportReturnType] - it takes and returns the same
