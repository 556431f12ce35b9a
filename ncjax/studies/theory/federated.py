"""Federated training on unlike clients: does a classifier fixed beforehand help where a learned one is biased?

FedETF (Li, Shang et al., 2023): every client classifies unit features by the same simplex ETF at a learned temperature, the
logarithm of its class counts added to the logits. FedLoGe (Xiao et al., 2024), for a long tail of classes: the backbone
learns through a fixed sparse simplex; beside it a global and a personal head learn on detached features; then the global
head's columns are brought to one length, and with the personal head's lengths, without classes that the client does
not have, added to the personal head. Both beside FedAvg (McMahan et al., 2017): local steps from the global model, then
the average weighted by images. A small demonstration: a perceptron, clients by Dirichlet shares of each class.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core.values import COUNT, POSITIVE, POSITIVE_SHARE, Items, between
from ncjax.evidence import intervals
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section
from ncjax.runs.run import Run
from ncjax.studies.theory import checks, mlp
from ncjax.studies.theory.clients import deal
from ncjax.studies.theory.rounds import Training, evaluate, train


def run(
    *,
    run: Run,
    data: str = "embedded.fashion_mnist_mini",
    per_class: Annotated[int, COUNT] = 300,
    clients: Annotated[int, between(2, 1000)] = 20,
    alphas: Annotated[list[float], POSITIVE, Items(least=1, distinct=True)] = [0.05, 0.1, 0.5],
    claimed: Annotated[float, POSITIVE] = 0.1,
    tail_alpha: Annotated[float, POSITIVE] = 0.5,
    imbalance: Annotated[float, POSITIVE_SHARE] = 0.02,
    seeds: Annotated[int, COUNT] = 5,
    rounds: Annotated[int, COUNT] = 40,
    local_steps: Annotated[int, COUNT] = 20,
    lr: Annotated[float, POSITIVE] = 0.05,
    batch_size: Annotated[int, COUNT] = 32,
) -> dict[str, Any]:
    """FedETF beside FedAvg at several unlikenesses of clients; FedLoGe beside FedAvg on a long tail; seeds all at once.

    Args:
      run: where it happens.
      data: images, flattened.
      per_class: training images of a class, of the largest one in the long tail.
      clients: how many; all take part in each round.
      alphas: of the Dirichlet shares, classes of one size.
      claimed: alphas up to here are those that the prediction is about; of the others only the figure tells.
      tail_alpha, imbalance: of the long tail: its shares, and its smallest class over its largest.
      seeds: of clients, order of classes, start and batches; the same for all methods.
      rounds, local_steps, lr, batch_size: of training by gradient descent.
    """
    (x, y), (tx, ty) = mlp.images(data, "train", per_class), mlp.images(data, "test", per_class)
    pixels, test, how = jnp.asarray(x), jnp.asarray(tx), Training(rounds, local_steps, lr, batch_size)

    programs = {  # compiled once for all alphas
        method: jax.jit(jax.vmap(functools.partial(train, method, how), (None, 0, 0)))
        for method in ("FedAvg", "FedETF", "FedLoGe")
    }

    def both(methods: Sequence[str], alpha: float, ratio: float) -> dict[str, Any]:
        """{method: what came out, by seed}."""
        parts = [deal(y, clients, alpha, ratio, seed) for seed in range(seeds)]
        arrays, keys = jax.tree.map(lambda *a: jnp.asarray(np.stack(a)), *parts), jax.random.split(jax.random.key(0), seeds)
        out = {}
        for method in methods:
            each = programs[method](pixels, keys, arrays)
            states = [jax.tree.map(lambda p, s=s: p[s], each) for s in range(seeds)]
            found = [evaluate(method, s, test, d.renamed[ty], d.counts) for s, d in zip(states, parts, strict=True)]
            out[method] = {name: [f[name] for f in found] for name in found[0]}
            accuracy = intervals.percent(intervals.share(out[method]["accuracy"]))
            run.say(f"alpha {alpha:g}, smallest over largest class {ratio:g}, {method}: {accuracy}")
        return out

    curves: dict[str, Any] = {f"{alpha:g}": both(("FedAvg", "FedETF"), alpha, 1.0) for alpha in alphas}
    curves["tail"] = both(("FedAvg", "FedLoGe"), tail_alpha, imbalance)
    return checks.finish(run, _judged(curves, claimed), curves)


def _judged(curves: dict[str, Any], claimed: float) -> list[checks.Check]:
    found = []
    for alpha, c in curves.items():
        if alpha != "tail" and float(alpha) <= claimed:
            for name, what, shown in (
                ("cosine", "cosine of clients' class means", 1),
                ("accuracy", "accuracy, points", 100),
            ):
                apart = intervals.paired(c["FedETF"][name], c["FedAvg"][name])
                found.append(checks.exceeds(f"alpha {alpha}: {what}, FedETF less FedAvg", apart, shown))
    ours, theirs = (curves["tail"][method] for method in ("FedLoGe", "FedAvg"))
    rare, own = "accuracy on its last classes, realigned less", "personalised accuracy, FedLoGe less FedAvg"
    for what, a, b in (
        (f"{rare} before", ours["tail_realigned"], ours["tail"]),
        (f"{rare} FedAvg", ours["tail_realigned"], theirs["tail"]),
        (f"{own}, both without absent classes", ours["personal"], theirs["personal"]),
        (f"{own} with its log class counts added", ours["personal"], theirs["prior"]),
    ):
        found.append(checks.exceeds(f"long tail: {what}, points", intervals.paired(a, b), 100))
    return found


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run."""
    intro = "Clients with unlike classes: a classifier fixed to a simplex beside a learned one."
    caption = (
        "Test accuracy of the global model and cosine of clients' class means over the Dirichlet's alpha, a dot a seed."
    )
    return checks.sections(runs, "Federated training", intro, (caption, _draw))


def _draw(run: Finished, name: str) -> figures.Drawn:
    c = {alpha: found for alpha, found in run.results["curves"].items() if alpha != "tail"}
    with figures.panels(2, 2, 3.0) as (figure, axes):
        for axis, (key, title) in zip(
            axes, (("accuracy", "test accuracy"), ("cosine", "cosine of clients' class means")), strict=True
        ):
            for i, method in enumerate(("FedAvg", "FedETF")):
                at = [float(alpha) for alpha in c]
                axis.plot(
                    at, [np.mean(found[method][key]) for found in c.values()], lw=1, color=figures.COLOURS[i], label=method
                )
                for alpha, found in zip(at, c.values(), strict=True):
                    axis.plot(
                        [alpha] * len(found[method][key]),
                        found[method][key],
                        "o",
                        ms=3,
                        alpha=0.6,
                        color=figures.COLOURS[i],
                    )
            axis.set(title=title, xlabel="alpha")
            figures.log_axis(axis, "x")
        axes[0].legend(fontsize=7)
        return figures.Drawn(f"federated-{name}", figure)
