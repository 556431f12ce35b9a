"""The law of parsimony: gradient descent on deep linear networks moves few directions.

Yaras et al. (2023): from orthogonal weights W_l(0) = e Q_l, gradient descent on 1/2 ||W_L ... W_1 X - Y||^2 with whitened
X and a target of rank r leaves d - 2r singular directions of every W_l with one common singular value; only 2r move. So a
network of 2r x 2r layers has the same end-to-end map on the inputs that move, at every step. From Gaussian weights it is
not so. And within-class over between-class spread falls geometrically from layer to layer (log C_l linear in l), with ReLU
too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core.values import COUNT, POSITIVE
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section
from ncjax.runs.run import Run
from ncjax.studies.theory import checks, solver
from ncjax.studies.theory.linear import collapse_by_layer, compressed, equal_values, orthogonal, product, straightness


@solver.in_double
def run(
    *,
    run: Run,
    width: Annotated[int, COUNT] = 30,
    rank: Annotated[int, COUNT] = 3,
    depth: Annotated[int, COUNT] = 3,
    start: Annotated[float, POSITIVE] = 0.5,
    lr: Annotated[float, POSITIVE] = 0.05,
    steps: Annotated[int, COUNT] = 2000,
    demo_depth: Annotated[int, COUNT] = 8,
    demo_steps: Annotated[int, COUNT] = 20000,
) -> dict[str, Any]:
    """The invariant subspace, the compressed network beside the whole one, and collapse over depth.

    Args:
      run: where it happens.
      width, rank, depth: d, r and L.
      start: e, the scale of the weights.
      lr, steps: of gradient descent.
      demo_depth, demo_steps: of the network of five classes whose layers are measured.
    """
    keys = jax.random.split(jax.random.key(0), depth + 3)
    u, v = orthogonal(keys[-1], width), orthogonal(keys[-2], width)
    target = u[:, :rank] * jnp.linspace(1.0, 2.0, rank) @ v[:, :rank].T

    def loss(layers: Sequence[Any]) -> Any:
        return 0.5 * jnp.sum((product(layers) - target) ** 2)

    even = [start * orthogonal(key, width) for key in keys[:depth]]
    gaussian = [start * jax.random.normal(key, (width, width)) / np.sqrt(width) for key in keys[:depth]]
    every = max(steps // 50, 1)
    train = jax.jit(lambda p: solver.descent(loss, p, lr=lr, steps=steps - steps % every, log=product, every=every))
    (after, whole), (other, _) = train(even), train(gaussian)
    small, left, right = compressed(even, target, rank)

    def small_loss(layers: Sequence[Any]) -> Any:
        return 0.5 * jnp.sum((left @ product(layers) @ right.T - target) ** 2)

    keep = width - 2 * rank
    _, narrow = jax.jit(
        lambda p: solver.descent(small_loss, p, lr=lr, steps=steps - steps % every, log=product, every=every)
    )(small)
    inside = jnp.einsum("ij,tjk,lk->til", left, narrow, right)
    projected = jnp.einsum("tij,jk,lk->til", whole, right, right)
    apart = float(jnp.max(jnp.abs(inside - projected)) / jnp.max(jnp.abs(projected)))
    found = [
        *(
            checks.near(
                f"orthogonal start, layer {i + 1}: equal singular values",
                keep,
                equal_values(np.asarray(w)),
                0,
                relative=False,
            )
            for i, w in enumerate(after)
        ),
        checks.below("Gaussian start: equal singular values at most", max(equal_values(np.asarray(w)) for w in other), 2),
        checks.below("compressed and whole trajectories apart, relative", apart, 1e-4),
    ]
    curves: dict[str, Any] = {"spectra": [np.linalg.svd(np.asarray(w), compute_uv=False).tolist() for w in after]}
    for relu in (False, True):
        c = _demo(demo_depth, demo_steps, relu)
        name = "ReLU" if relu else "linear"
        found.append(checks.above(f"{name}: R² of log C_l over {demo_depth - 1} layers", straightness(c), 0.95))
        curves[name] = c.tolist()
    return checks.finish(run, found, curves)


def _demo(depth: int, steps: int, relu: bool, d: int = 50, k: int = 5, n: int = 10) -> np.ndarray:
    """C_l of a trained network: five classes of ten, orthogonal inputs, orthogonal start of scale a half."""
    keys = jax.random.split(jax.random.key(1), depth + 1)
    x, labels = orthogonal(keys[-1], d)[:, : k * n], np.repeat(np.arange(k), n)
    y = jnp.eye(k)[labels].T
    layers = [0.5 * orthogonal(key, d) for key in keys[: depth - 1]] + [0.5 * orthogonal(keys[-2], d)[:k]]

    def loss(layers: Sequence[Any]) -> Any:
        h = x
        for layer in layers[:-1]:
            h = layer @ h
            h = jnp.maximum(h, 0) if relu else h
        return 0.5 * jnp.sum((layers[-1] @ h - y) ** 2)

    trained, _ = jax.jit(lambda p: solver.descent(loss, p, lr=0.01, steps=steps, every=steps))(layers)
    return collapse_by_layer(trained, x, labels, relu)


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run."""
    intro = "From orthogonal weights all but 2r singular values of each layer stay one and the same (Yaras et al., 2023)."
    caption = "Singular values of each layer after training; spread within classes over spread between them, by layer."
    return checks.sections(runs, "The law of parsimony", intro, (caption, _draw))


def _draw(run: Finished, name: str) -> figures.Drawn:
    curves = run.results["curves"]
    with figures.panels(2, 2, 3.0) as (figure, axes):
        for i, s in enumerate(curves["spectra"]):
            axes[0].plot(range(1, len(s) + 1), s, "o-", ms=3, lw=0.8, color=figures.COLOURS[i % 7], label=f"layer {i + 1}")
        axes[0].set(title="singular values", xlabel="index")
        for i, kind in enumerate(("linear", "ReLU")):
            axes[1].plot(
                range(1, len(curves[kind]) + 1), curves[kind], "s-", ms=3, color=figures.COLOURS[3 + i], label=kind
            )
        axes[1].set(title="tr S_W / tr S_B", xlabel="layer")
        figures.log_axis(axes[1])
        axes[0].legend(fontsize=7)
        axes[1].legend(fontsize=7)
        return figures.Drawn(f"parsimony-{name}", figure)
