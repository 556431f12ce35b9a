"""The law of equi-separation: each layer of a trained network separates classes by the same factor.

He & Su (2023): D_l = tr(S_W S_B^+) of the features after layer l of a multilayer perceptron, trained to the end, falls
geometrically, D_l = rho^l D_0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ncjax import nc
from ncjax.core.values import COUNT, POSITIVE, Items
from ncjax.evidence import intervals
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section
from ncjax.runs.run import Run
from ncjax.studies.theory import checks, mlp
from ncjax.studies.theory.linear import straightness


def run(
    *,
    run: Run,
    data: str = "embedded.fashion_mnist_mini",
    per_class: Annotated[int, COUNT] = 100,
    depths: Annotated[list[int], COUNT, Items(least=1, distinct=True)] = [4, 6, 8],
    width: Annotated[int, COUNT] = 100,
    seeds: Annotated[int, COUNT] = 5,
    lr: Annotated[float, POSITIVE] = 1e-3,
    steps: Annotated[int, COUNT] = 4000,
    batch_size: Annotated[int, COUNT] = 100,
    straight: Annotated[float, POSITIVE] = 0.9,
) -> dict[str, Any]:
    """Trains perceptrons of several depths by Adam, all seeds at once, and measures every layer.

    Args:
      run: where it happens.
      data: images, flattened.
      per_class: that many of each class.
      depths: hidden layers.
      width: of each.
      seeds: of start and order.
      lr, steps, batch_size: of the training.
      straight: the rule, fixed before the run: the mean R^2 over seeds of a line through log D_l is at least this.
    """
    x, y = mlp.images(data, "train", per_class)
    k, (x, y) = int(y.max()) + 1, map(jnp.asarray, (x, y))

    def trained(key: Any, depth: int) -> Any:
        def loss(params: Any, rows: Any) -> Any:
            logits = mlp.features(params, x[rows])[-1]
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

        start, order = jax.random.split(key)
        params = mlp.init(start, [x.shape[1], *[width] * depth, k])
        (params,) = mlp.fit(loss, params, order, images=len(x), lr=lr, steps=steps, batch_size=batch_size)
        out = mlp.features(params, x)
        return out[:-1], jnp.mean(jnp.argmax(out[-1], 1) == y)

    found, curves = [], {}
    for depth in depths:
        layers, accuracy = jax.jit(jax.vmap(lambda key, depth=depth: trained(key, depth)))(
            jax.random.split(jax.random.key(0), seeds)
        )
        values = np.array(
            [[k * float(nc.nc1(nc.collect(h, y, num_classes=k))) for h in hidden] for hidden in zip(*layers, strict=True)]
        )
        fits = intervals.mean([straightness(v) for v in values])
        run.say(
            f"{depth} layers: train accuracy {np.mean(accuracy):.3f}, R² {fits.mean:.3f} [{fits.low:.3f}, {fits.high:.3f}]"
        )
        found.append(checks.above(f"R² of log D_l, {depth} layers, mean over seeds", fits.mean, straight))
        curves[str(depth)] = values.tolist()
    return checks.finish(run, found, curves)


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run."""
    intro = "tr(S_W S_B⁺) falls by one factor from layer to layer of a trained perceptron (He & Su, 2023)."
    return checks.sections(runs, "The law of equi-separation", intro, ("By layer, a line a seed, a colour a depth.", _draw))


def _draw(run: Finished, name: str) -> figures.Drawn:
    with figures.panel(5.4, 3.4) as (figure, axis):
        for i, (depth, values) in enumerate(run.results["curves"].items()):
            for j, line in enumerate(values):
                label = f"{depth} layers" if j == 0 else None
                axis.plot(range(1, len(line) + 1), line, "o-", ms=2, lw=0.8, color=figures.COLOURS[i % 7], label=label)
        axis.set(xlabel="layer", ylabel="tr(S_W S_B⁺)")
        figures.log_axis(axis)
        figures.legend_below(figure, axis)
        return figures.Drawn(f"separation-{name}", figure)
