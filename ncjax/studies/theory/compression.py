"""Compressed deep factorisations complete matrices faster than wide ones.

Kwon, Zhang, Song, Balzano & Qu (2024): a deep factorisation W_L ... W_1 of d x d matrices, orthogonal and small at the
start, fits principal components one by one within a small subspace. So one may begin with [e V', e I, ..., e U], U and V
the top r' singular vectors of a surrogate (the observed entries over their share), and train 2 d r' + (L - 2) r'^2 numbers
in place of L d^2, the outer factors at a learning rate of their own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core.values import COUNT, PART, POSITIVE
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section
from ncjax.runs.run import Run
from ncjax.studies.theory import checks, solver
from ncjax.studies.theory.linear import orthogonal, product


@solver.in_double
def run(
    *,
    run: Run,
    width: Annotated[int, COUNT] = 100,
    rank: Annotated[int, COUNT] = 5,
    depth: Annotated[int, COUNT] = 3,
    observed: Annotated[float, PART] = 0.3,
    start: Annotated[float, POSITIVE] = 1e-2,
    lr: Annotated[float, POSITIVE] = 10.0,
    outer: Annotated[float, POSITIVE] = 5.0,
    steps: Annotated[int, COUNT] = 5000,
    seeds: Annotated[int, COUNT] = 5,
) -> dict[str, Any]:
    """Completes matrices of low rank by both, and compares their errors at every step that is logged.

    Args:
      run: where it happens.
      width, rank: d and r of the matrix, whose largest singular value is 1.
      depth: L.
      observed: share of the entries.
      start: e, the scale of the factors.
      lr: of gradient descent on half the mean square error of observed entries, times d.
      outer: how much larger the first and last factor's rate is in the compressed one.
      steps: of gradient descent.
      seeds: matrices.
    """
    every, kept = max(steps // 50, 1), 2 * rank
    steps -= steps % every

    def problem(key: Any) -> tuple[Any, Any, list[Any]]:
        a, b, c, *own = jax.random.split(key, depth + 3)
        target = jax.random.normal(a, (width, rank)) @ jax.random.normal(b, (rank, width))
        target = target / jnp.linalg.norm(target, 2)
        mask = (jax.random.uniform(c, (width, width)) < observed).astype(float)
        return target, mask, [start * orthogonal(k, width) for k in own]

    def error(whole: Any, target: Any) -> Any:
        return jnp.linalg.norm(whole - target) / jnp.linalg.norm(target)

    def loss_of(target: Any, mask: Any) -> Any:
        return lambda layers: 0.5 * jnp.sum((mask * (product(layers) - target)) ** 2) / jnp.sum(mask) * width

    def wide(key: Any) -> Any:
        target, mask, layers = problem(key)
        return solver.descent(
            loss_of(target, mask), layers, lr=lr, steps=steps, log=lambda p: error(product(p), target), every=every
        )[1]

    def narrow(key: Any) -> Any:
        target, mask, _ = problem(key)
        u, _, v = jnp.linalg.svd(mask * target / observed)
        layers = [start * v[:kept], *[start * jnp.eye(kept)] * (depth - 2), start * u[:, :kept]]
        rates = [jnp.full((), lr * outer), *[jnp.full((), lr)] * (depth - 2), jnp.full((), lr * outer)]
        return solver.descent(
            loss_of(target, mask), layers, lr=rates, steps=steps, log=lambda p: error(product(p), target), every=every
        )[1]

    keys, curves, seconds = jax.random.split(jax.random.key(0), seeds), {}, {}
    for name, method in (("wide", wide), ("compressed", narrow)):
        compiled = jax.jit(jax.vmap(method)).lower(keys).compile()
        begun = time.perf_counter()
        curves[name] = np.asarray(jax.block_until_ready(compiled(keys)))
        seconds[name] = time.perf_counter() - begun
        run.say(f"{name}: error {curves[name][:, -1].mean():.3g} at the end, {seconds[name]:.1f} s for {seeds} matrices")
    worse = float(np.max(curves["compressed"][:, 1:] - curves["wide"][:, 1:]))
    numbers = (2 * width * kept + (depth - 2) * kept**2) / (depth * width**2)
    found = [
        checks.below("compressed less wide error, largest over seeds and logged steps", worse, 1e-3),
        checks.below("error of the compressed at the end, mean", float(curves["compressed"][:, -1].mean()), 0.1),
        checks.below("numbers trained, of the wide one's", numbers, 0.5),
    ]
    shown = {name: c.tolist() for name, c in curves.items()}
    return checks.finish(run, found, {**shown, "every": every, "seconds": seconds})


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run."""
    intro = "A factorisation of 2r directions completes a matrix of rank r no worse at any step (Kwon et al., 2024)."
    caption = "Error of the completed matrix over steps of gradient descent, a line a matrix."
    return checks.sections(runs, "Compressed factorisations", intro, (caption, _draw))


def _draw(run: Finished, name: str) -> figures.Drawn:
    c = run.results["curves"]
    with figures.panel(5.4, 3.4) as (figure, axis):
        for i, kind in enumerate(("wide", "compressed")):
            for j, line in enumerate(c[kind]):
                label = f"{kind}, {c['seconds'][kind]:.1f} s in all" if j == 0 else None
                axis.plot(np.arange(len(line)) * c["every"], line, lw=0.9, color=figures.COLOURS[i], label=label)
        axis.set(xlabel="step", ylabel="relative error")
        figures.log_axis(axis)
        figures.legend_below(figure, axis)
        return figures.Drawn(f"compression-{name}", figure)
