"""Is deep neural collapse optimal? For two classes it is; for many, low-rank solutions win.

Súkeník, Mondelli & Lampert (2023) and Súkeník, Lampert & Mondelli (2024). The deep unconstrained-features model, n = 1,

    1/(2 K) ||W_L s(W_{L-1} s(... W_2 s(W_1 H_1)))  - I||^2 + l/2 (||W_1||^2 + ... + ||W_L||^2 + ||H_1||^2),  s = ReLU,

without ReLU on H_1. Deep neural collapse keeps K orthogonal means of one norm in every layer; its loss is
min_s (s - 1)^2 / 2 + l K (L + 1)/2 s^{2/(L+1)} with K times l for the mean over classes (derived here). The rival comes
from strongly regular graphs: K = r(r-1)/2 classes are the edges of a complete graph with incidence matrix B, relu(B'B -
11') = I exactly, at rank r before the ReLU. (The normalisation by 1/(2K) is ours, from memory of the paper.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core.values import COUNT, POSITIVE, Items, Range
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section
from ncjax.runs.run import Run
from ncjax.studies.theory import checks, solver
from ncjax.studies.theory.deep_model import CUT, collapsed_loss, graph_start, incidence, layers_of, objective

AT_LEAST_TEN = Range("10 or more", 10, 10**6)  # as many as there are classes


def _random(key: Any, k: int, depth: int, width: int) -> list[Any]:
    shapes = [(width, width)] * (depth - 1) + [(k, width), (width, k)]
    return [
        jax.random.normal(a, s) / jnp.sqrt(width) for a, s in zip(jax.random.split(key, depth + 1), shapes, strict=True)
    ]


def _rank(x: Any) -> Any:
    s = jnp.linalg.svd(x, compute_uv=False)
    return jnp.sum(s > CUT * s[0])


@solver.in_double
def run(
    *,
    run: Run,
    decay: Annotated[float, POSITIVE] = 0.004,
    depth: Annotated[int, Range("3 or more", 3, 1000)] = 4,
    width: Annotated[int, AT_LEAST_TEN] = 30,
    widths: Annotated[list[int], AT_LEAST_TEN, Items(least=2, distinct=True)] = [12, 20, 40, 80],
    seeds: Annotated[int, COUNT] = 20,
    lr: Annotated[float, POSITIVE] = 0.5,
    steps: Annotated[int, COUNT] = 20000,
    refine: Annotated[int, COUNT] = 2000,
) -> dict[str, Any]:
    """Two classes from many starts; the graph's solution beside deep collapse for ten; how often descent finds which.

    Args:
      run: where it happens.
      decay, depth: l and L.
      width: of the layers, for two classes and for the graph's solution.
      widths: of which it is asked how often gradient descent ends in deep neural collapse: rank 10 in every layer, and the
        loss within 1 % of its.
      seeds: starts of each.
      lr, steps: of gradient descent.
      refine: steps of L-BFGS from the graph's solution.
    """

    def loss(p: Any) -> Any:
        return objective(p, decay)

    def descend(key: Any, k: int, w: int) -> Any:
        end, _ = solver.descent(loss, _random(key, k, depth, w), lr=lr, steps=steps, every=steps)
        return loss(end), [_rank(x) for x in layers_of(end)[:-1]], [_condition(x) for x in layers_of(end)[:-1]]

    keys = jax.random.split(jax.random.key(0), seeds)
    best, (two, _, conditions) = (
        collapsed_loss(2, depth, decay),
        jax.jit(jax.vmap(lambda key: descend(key, 2, width)))(keys),
    )
    inside = float(np.mean(np.asarray(two) < 1.01 * best))
    closed = np.asarray(two) < 1.01 * best
    condition = float(max(np.asarray(c)[closed].max() for c in conditions)) if closed.any() else np.inf
    b = incidence(5)
    identity = np.abs(np.maximum(b.T @ b - 1, 0) - np.eye(10)).max()
    ten = collapsed_loss(10, depth, decay)
    start = [jnp.asarray(x) for x in graph_start(5, depth, width)]
    graph, graph_loss = jax.jit(lambda p: solver.lbfgs(loss, p, refine))(start)
    ranks = [int(_rank(x)) for x in layers_of(graph)[:-1]]
    run.say(f"ten classes: deep collapse {ten:.5f}, the graph's solution {float(graph_loss):.5f}, ranks {ranks}")
    found = [
        checks.above("K = 2: share of starts within 1 % of the closed form", inside, 0.9),
        checks.below("K = 2: condition of the class means in every layer of those", condition, 1.1),
        checks.below("relu(B'B - 11') less the identity, r = 5", float(identity), 1e-12),
        checks.below("K = 10: the graph's loss over that of deep collapse", float(graph_loss) / ten, 1.0),
        checks.below("K = 10: its largest rank before a ReLU", max(ranks), 10),
    ]
    curves: dict[str, Any] = {"collapse": ten, "graph": float(graph_loss), "widths": widths, "losses": [], "share": []}
    for w in widths:
        ends, ends_ranks, _ = jax.jit(jax.vmap(lambda key, w=w: descend(key, 10, w)))(keys)
        full = np.all([np.asarray(r) == 10 for r in ends_ranks], axis=0) & (np.abs(np.asarray(ends) / ten - 1) < 0.01)
        curves["losses"].append(np.asarray(ends).tolist())
        curves["share"].append(float(full.mean()))
        run.say(f"width {w}: {full.sum()} of {seeds} starts end in deep collapse, lowest loss {float(ends.min()):.5f}")
    rises = curves["share"][-1] - curves["share"][0]
    found.append(
        checks.above(f"K = 10: share that ends in deep collapse, width {widths[-1]} less {widths[0]}", rises, 1e-9)
    )
    return checks.finish(run, found, curves)


def _condition(x: Any) -> Any:
    s = jnp.linalg.svd(jnp.maximum(x, 0), compute_uv=False)
    return s[0] / s[1]


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run."""
    intro = (
        "Deep neural collapse is optimal for two classes; for ten a solution of lower rank, from a strongly regular graph, "
        "has a lower loss, and narrow networks find such ones (Súkeník et al., 2023, 2024)."
    )
    caption = "Loss of gradient descent from each start, over width; lines: deep neural collapse, and the graph's solution."
    return checks.sections(runs, "Deep unconstrained features", intro, (caption, _draw))


def _draw(run: Finished, name: str) -> figures.Drawn:
    c = run.results["curves"]
    with figures.panel(5.4, 3.4) as (figure, axis):
        for w, losses in zip(c["widths"], c["losses"], strict=True):
            axis.plot([w] * len(losses), losses, "o", ms=3, alpha=0.5, color=figures.COLOURS[0])
        axis.axhline(c["collapse"], color=figures.COLOURS[1], lw=1, label="deep neural collapse")
        axis.axhline(c["graph"], color=figures.COLOURS[2], lw=1, label="strongly regular graph")
        axis.set(xlabel="width", ylabel="loss")
        figures.log_axis(axis, "x")
        figures.legend_below(figure, axis)
        return figures.Drawn(f"deep-{name}", figure)
