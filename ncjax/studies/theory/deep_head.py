"""A small convolutional network with a deep linear-ReLU head: does it collapse in every layer, and at which rank?

Súkeník et al. (2023, 2024): what holds of deep unconstrained features, see `deep_ufm`, is to hold of the last layers of a
network whose features H_1 the backbone is free to place. Loss, N images, head W_1 ... W_L without biases:

    1/(2 N) ||W_L s(... W_2 s(W_1 H_1)) - Y||^2 + l_W/2 (||W_1||^2 + ... + ||W_L||^2) + l_H/2 ||H_1||^2,

the backbone not decayed. With n images of each of K classes deep collapse reaches at best `collapsed_loss` at the decay
(l_W^L n l_H)^{1/(L+1)}: factors of unequal decays share their product's cost as equal ones do (derived here).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.values import COUNT, POSITIVE, Range
from ncjax.evidence import intervals
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section
from ncjax.runs.run import Run
from ncjax.studies.theory import checks, cnn, mlp
from ncjax.studies.theory.deep_model import collapse, collapsed_loss, layers_of


def run(
    *,
    run: Run,
    data: str = "embedded.fashion_mnist_mini",
    per_class: Annotated[int, COUNT] = 100,
    depth: Annotated[int, Range("3 or more", 3, 1000)] = 4,
    width: Annotated[int, COUNT] = 64,
    head_decay: Annotated[float, POSITIVE] = 4e-3,
    feature_decay: Annotated[float, POSITIVE] = 4e-3,
    seeds: Annotated[int, COUNT] = 5,
    lr: Annotated[float, POSITIVE] = 2e-3,
    steps: Annotated[int, COUNT] = 5000,
    batch_size: Annotated[int, COUNT] = 100,
) -> dict[str, Any]:
    """Trains on two classes and on all of them, a seed after another, and measures the head's layers.

    Args:
      run: where it happens.
      data: square images.
      per_class: of each class; two of them are the first two.
      depth, width: L, and the features' width.
      head_decay: l_W.
      feature_decay: n l_H, so that it means the same for any number of images.
      seeds: of start and order.
      lr, steps, batch_size: of Adam, its rate falling along a cosine.

    Raises:
      UserError: images that are not square and grey, classes of unequal size, fewer than three, or a smaller width.
    """
    x, y = mlp.grey(data, "train", per_class)
    side, classes, curves = x.shape[1], int(y.max()) + 1, {}
    if classes < 3 or width < classes:
        raise UserError(f"width={width}, {classes} classes: three classes at least, and a width of as many")
    for k in (2, classes):
        own = y < k
        images, labels = jnp.asarray(x[own][..., None]), jnp.asarray(y[own])
        epoch = min(-(-len(labels) // batch_size), steps)

        def outputs(params: Any, x: Any) -> list[Any]:
            return layers_of([*params[1], cnn.features(params[0], x).T])

        def parts(params: Any, rows: Any, images: Any = images, labels: Any = labels, k: int = k) -> Any:
            body, head = params
            h = cnn.features(body, images[rows])
            error = layers_of([*head, h.T])[-1] - jax.nn.one_hot(labels[rows], k).T
            decayed = head_decay * sum(jnp.sum(w**2) for w in head) + feature_decay * k * jnp.mean(jnp.sum(h**2, axis=1))
            return jnp.mean(jnp.sum(error**2, axis=0)) / 2 + decayed / 2

        whole, every = jax.jit(outputs), np.arange(len(labels))

        def measured(params: Any, images: Any = images, labels: Any = labels, whole: Any = whole) -> dict[str, list[float]]:
            return collapse([np.asarray(h, np.float64) for h in whole(params, images)[:-1]], np.asarray(labels))

        found = []
        for seed in range(seeds):
            a, *heads = jax.random.split(jax.random.key(seed), depth + 1)
            sizes = [(width, width)] * (depth - 1) + [(k, width)]
            head = [jax.random.normal(key, s) / np.sqrt(s[1]) for key, s in zip(heads, sizes, strict=True)]
            options = {"images": len(labels), "lr": lr, "steps": steps, "batch_size": batch_size, "seed": seed}
            first, last = cnn.fit(parts, (cnn.init(a, side, width), head), **options, at=(epoch, steps))
            early = {f"{key}_first": v for key, v in measured(first).items()}
            found.append({**measured(last), **early, "loss": float(parts(last, every))})
        best = collapsed_loss(k, depth, (head_decay**depth * feature_decay) ** (1 / (depth + 1)))
        curves[str(k)] = {"bound": best, "epoch": epoch, **{key: [f[key] for f in found] for key in found[0]}}
        shown = "{:.4f} [{:.4f}, {:.4f}]".format(*intervals.mean(curves[str(k)]["loss"]))
        run.say(f"{k} classes: loss {shown}, deep collapse {best:.4f}")
    return checks.finish(run, _judged(curves), curves)


def _judged(curves: dict[str, Any]) -> list[checks.Check]:
    two, many = curves.values()
    k, after = list(curves)[1], f"after {two['epoch']} steps over that at the end, geometric mean, least of layers"

    def falls(first: Any, last: Any) -> float:
        return float(np.exp(np.mean(np.log(first) - np.log(last), axis=0).min()))

    apart = [np.maximum(np.asarray(two[name]) - 1, 1e-12) for name in ("condition_first", "condition")]
    ranks, below = np.min(many["rank"], axis=1), intervals.mean(many["bound"] - np.asarray(many["loss"]))
    slopes = [-np.polyfit(range(len(d)), np.log(d), 1)[0] for d in two["dnc1"]]
    return [
        checks.exceeds("K = 2: fall of log DNC1 from layer to layer", intervals.mean(slopes)),
        checks.above(f"K = 2: DNC1 {after}", falls(two["dnc1_first"], two["dnc1"]), 10.0),
        checks.above(f"K = 2: condition less 1 {after}", falls(*apart), 10.0),
        checks.below(
            f"K = {k}: largest DNC1 of a layer, mean over seeds", float(np.mean(np.max(many["dnc1"], axis=1))), 0.05
        ),
        checks.below(f"K = {k}: smallest rank of a layer before its ReLU, largest of seeds", float(ranks.max()), float(k)),
        checks.exceeds(f"K = {k}: loss of deep collapse less the network's", below),
    ]


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run."""
    intro = "A small convolutional network with a deep head: collapse by layer for two classes and for all."
    caption = "By layer of the head, a line a seed: DNC1 after one epoch (dashed) and at the end, and rank before the ReLU."
    return checks.sections(runs, "A deep head", intro, (caption, _draw))


def _draw(run: Finished, name: str) -> figures.Drawn:
    with figures.panels(2, 2, 3.0) as (figure, axes):
        for i, (k, c) in enumerate(run.results["curves"].items()):
            for j, (last, first, rank) in enumerate(zip(c["dnc1"], c["dnc1_first"], c["rank"], strict=True)):
                layers, label = range(1, len(last) + 1), f"{k} classes" if j == 0 else None
                axes[0].plot(layers, last, "o-", ms=2, lw=0.8, color=figures.COLOURS[i], label=label)
                axes[0].plot(layers, first, "--", lw=0.8, color=figures.COLOURS[i])
                axes[1].plot(layers, rank, "o-", ms=3, lw=0.8, alpha=0.6, color=figures.COLOURS[i], label=label)
        for axis, title in zip(axes, ("tr S_W / tr S_B", "rank of class means"), strict=True):
            axis.set(title=title, xlabel="layer", xticks=layers)
        figures.log_axis(axes[0])
        axes[0].legend(fontsize=7)
        return figures.Drawn(f"deep-head-{name}", figure)
