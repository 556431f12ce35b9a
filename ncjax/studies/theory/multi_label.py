"""Images with one label and with two: do a network's features become tag sums, and is a fixed simplex as good a head?

Li, Li, Wang & Qu (2024) predict for trained networks what `pick_all_label` shows for free features: class means of images
with one label form a simplex, means of pairs lie along sums of their labels' means; so a classifier fixed to a simplex
of as many features as classes loses nothing. Images are made as in their code, two of them in opposite corners of a
canvas and the larger pixel where they overlap; here they are halved in size first.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ncjax import nc
from ncjax.core.values import COUNT, NOT_NEGATIVE, POSITIVE, OneOf, between
from ncjax.evidence import intervals
from ncjax.losses.etf import simplex_etf
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section
from ncjax.runs.run import Run
from ncjax.studies.theory import checks, mlp
from ncjax.studies.theory.canvas import canvases, iou
from ncjax.studies.theory.pick_all_label import angle_metric, pick_all_label


def run(
    *,
    run: Run,
    data: str = "embedded.fashion_mnist_mini",
    singles: Annotated[int, COUNT] = 200,
    pairs: Annotated[int, COUNT] = 30,
    reduction: Annotated[str, OneOf("sum", "mean")] = "mean",
    scale: Annotated[float, POSITIVE] = 2.0,
    feature_decay: Annotated[float, NOT_NEGATIVE] = 1e-3,
    weight_decay: Annotated[float, NOT_NEGATIVE] = 5e-4,
    seeds: Annotated[int, COUNT] = 5,
    lr: Annotated[float, POSITIVE] = 1e-3,
    steps: Annotated[int, between(2)] = 6000,
    batch_size: Annotated[int, COUNT] = 128,
) -> dict[str, Any]:
    """Trains perceptrons with a learned and with a fixed head, all seeds at once, and measures their features.

    Args:
      run: where it happens.
      data: square images of 28 pixels.
      singles, pairs: training images of each class, of each pair; a fifth as many in test.
      reduction: of the loss over an image's labels.
      scale: length of the fixed head's rows.
      feature_decay: on the mean squared length of features.
      weight_decay: on half the sum of squares of weights.
      seeds: of images, start and batches.
      lr, steps, batch_size: of Adam, its rate falling along a cosine.
    """
    train, test = (mlp.grey(data, split, 300, 28) for split in ("train", "test"))
    made = [canvases(*train, singles, pairs, seed) for seed in range(seeds)]
    others = [canvases(*test, max(singles // 5, 1), max(pairs // 5, 1), seed) for seed in range(seeds)]
    (x, tags), (tx, test_tags) = (tuple(map(np.stack, zip(*each, strict=True))) for each in (made, others))
    k = tags.shape[-1]
    etf = scale * jnp.asarray(simplex_etf(k, k), jnp.float32)
    alone = np.arange(k * singles)  # rows of images with one label

    def trained(key: Any, x: Any, tags: Any, tx: Any, learned: bool) -> Any:
        def logits_of(params: Any, x: Any) -> tuple[Any, Any]:
            h = mlp.features(params[0], x)[-1]
            return h, h @ (params[1] if learned else etf.T)

        def loss(params: Any, rows: Any) -> Any:
            h, z = logits_of(params, x[rows])
            decayed = [w for w, _ in params[0]] + ([params[1]] if learned else [])
            return (
                jnp.mean(pick_all_label(z, tags[rows], reduction))
                + feature_decay * jnp.mean(jnp.sum(h**2, axis=1))
                + weight_decay / 2 * sum(jnp.sum(w**2) for w in decayed)
            )

        a, b, order = jax.random.split(key, 3)
        params: Any = (mlp.init(a, [x.shape[1], 256, 256, k]), jax.random.normal(b, (k, k)) / np.sqrt(k))
        rate = optax.cosine_decay_schedule(lr, steps)
        halves = mlp.fit(loss, params, order, images=len(x), lr=rate, steps=steps, batch_size=batch_size, parts=2)
        return [logits_of(params, x)[0] for params in halves], logits_of(halves[-1], tx)[1]

    keys, curves = jax.random.split(jax.random.key(0), seeds), {}
    for name, learned in (("learned", True), ("fixed", False)):
        each = jax.jit(jax.vmap(lambda key, x, tags, tx, learned=learned: trained(key, x, tags, tx, learned)))
        seen, logits = each(keys, *map(jnp.asarray, (x, tags, tx)))
        half, end = ([_measured(h, t, k, alone, pairs) for h, t in zip(np.asarray(s), tags, strict=True)] for s in seen)
        found = {"angle_half": [a for a, _ in half], "angle": [a for a, _ in end], "nc1": [n for _, n in end]}
        found["iou"] = [iou(z, t) for z, t in zip(np.asarray(logits), test_tags, strict=True)]
        curves[name] = found
        run.say(
            f"{name} head: test IoU {intervals.percent(intervals.share(found['iou']))}, angle {np.mean(found['angle']):.3f}"
        )
    apart = intervals.paired(curves["fixed"]["iou"], curves["learned"]["iou"])
    run.say(f"fixed less learned head: {intervals.points(apart, sign=True)} points of IoU, {k * k} numbers fewer to learn")
    judged = []

    def logs(c: dict[str, list[float]]) -> list[list[float]]:
        return [np.log(c[name]).tolist() for name in ("angle_half", "angle")]

    for name, c in curves.items():
        judged += [
            checks.below(
                f"{name} head: angle of pair means to tag sums, over that to others", float(np.mean(c["angle"])), 0.2
            ),
            checks.exceeds(f"{name} head: log of that angle halfway, less at the end", intervals.paired(*logs(c))),
            checks.below(f"{name} head: NC1 of images with one label", float(np.mean(c["nc1"])), 0.1),
        ]
    margin = intervals.Interval(*(v + 0.01 for v in apart))
    judged.append(checks.exceeds("IoU of the fixed head less learned, plus the margin of a point", margin, 100))
    return checks.finish(run, judged, curves)


def _measured(h: np.ndarray, tags: np.ndarray, k: int, alone: np.ndarray, pairs: int) -> tuple[float, float]:
    """(angle metric of pair means, about the mean of single means; NC1 of images with one label)."""
    nc1 = float(nc.nc1(nc.collect(h[alone], tags[alone].argmax(1), num_classes=k)))
    means = np.stack([h[alone][tags[alone][:, c] > 0].mean(0) for c in range(k)])
    both = h[len(alone) :].reshape(-1, pairs, h.shape[1]).mean(1) - means.mean(0)
    means = means - means.mean(0)
    return angle_metric(both, np.stack([means[i] + means[j] for i, j in itertools.combinations(range(k), 2)])), nc1


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run."""
    intro = "Two images on a canvas: do means of pairs lie along their labels' sum, and does a fixed simplex serve as head?"
    caption = "A dot a seed: angle to tag sums, NC1 of images with one label, and test IoU, by head."
    return checks.sections(runs, "Several labels, a network", intro, (caption, _draw))


def _draw(run: Finished, name: str) -> figures.Drawn:
    c = run.results["curves"]
    with figures.panels(3, 3, 2.6) as (figure, axes):
        for axis, (key, title) in zip(axes, (("angle", "angle metric"), ("nc1", "NC1"), ("iou", "test IoU")), strict=True):
            for i, head in enumerate(c):
                axis.plot([i] * len(c[head][key]), c[head][key], "o", ms=4, alpha=0.6, color=figures.COLOURS[i])
            axis.set(title=title, xlim=(-0.5, 1.5))
            axis.set_xticks(range(len(c)), list(c))
        return figures.Drawn(f"multi-label-{name}", figure)
