"""Is it quicker to train the seeds of a small model in one program? A vmapped step against one seed after the other.

    python bench/seeds.py [--cases NAME ...] [--seeds 3] [--batch 64] [--steps 10] [--repeats 3] [--out FILE.json]

The same step (SGD with momentum), on random images, for models from an MLP to a CIFAR ResNet-20, and for what is left of
the ResNet above a kept prefix. "vmapped" adds an axis of seeds to the state and the batch, compiled as one
program; "in turn" runs the compiled step once a seed. What both have learnt at the end must agree.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np

from ncjax import optim
from ncjax.core import mesh, trees
from ncjax.core.roles import MODEL, resolve
from ncjax.core.types import Batch
from ncjax.losses import cross_entropy
from ncjax.training import loop
from ncjax.transfer import prefix

# name: (model, image shape, first block trained; None for all)
CASES: dict[str, tuple[str, tuple[int, ...], str | None]] = {
    "mlp": ("models.mlp.mlp()", (8, 8, 1), None),
    "vit, 4 blocks of 192": ("models.vit.vit_ti(patch=4, depth=4)", (32, 32, 3), None),
    "resnet14, width 16": ("models.resnet.resnet14(width=16)", (28, 28, 1), None),
    "resnet20": ("models.resnet.resnet20()", (32, 32, 3), None),
    "resnet20 from layer3.0": ("models.resnet.resnet20()", (32, 32, 3), "layer3.0"),
}
CLASSES = 10


def jobs_of(case: str, seeds: int, batch: int, steps: int) -> dict[str, Callable[[], Any]]:
    """Both ways to take `steps` steps of every seed from the same start; each returns the parameters [seeds, ...]."""
    name, shape, start = CASES[case]
    model, devices = resolve(name, MODEL)(num_classes=CLASSES), mesh.make()
    init = functools.partial(jax.jit(model.init, static_argnums=1), image_shape=shape)
    tuned = model.blocks[0 if start is None else model.blocks.index(start) :]
    mask = trees.block_mask(init(jax.random.key(0))["params"], tuned)
    if start is not None:
        shape, model = prefix.carry_shape(model, init(jax.random.key(0)), shape, start), prefix.tail(model, start)
    tx, _ = optim.build(optim.Optim(lr=1e-2, schedule="optim.constant"), mask, steps, 1)
    step = loop.make_step(model.apply, cross_entropy(), tx, mask, frozenset(tuned), devices, ragged=0)
    rng = np.random.default_rng(0)
    row = np.arange(batch, dtype=np.int32) % CLASSES
    feed = [
        jax.device_put(Batch(rng.normal(size=(batch, *shape)).astype(np.float32), row, np.ones(batch, np.float32)))
        for _ in range(seeds)
    ]
    starts = [loop.init_state(init(key), tx, mask, key, devices) for key in jax.random.split(jax.random.key(0), seeds)]

    def stacked(items: list[Any]) -> Any:
        return jax.tree.map(lambda *x: jnp.stack(x), *items)

    wide_step, wide_feed, wide_start = jax.jit(jax.vmap(step), donate_argnums=0), stacked(feed), stacked(starts)

    def in_turn() -> Any:
        states = jax.tree.map(jnp.copy, starts)
        for _ in range(steps):
            states = [step(state, fed)[0] for state, fed in zip(states, feed, strict=True)]
        return jax.block_until_ready(stacked([state.variables["params"] for state in states]))

    def vmapped() -> Any:
        state = jax.tree.map(jnp.copy, wide_start)
        for _ in range(steps):
            state, _ = wide_step(state, wide_feed)
        return jax.block_until_ready(state.variables["params"])

    return {"in turn": in_turn, "vmapped": vmapped}


def compare(case: str, seeds: int, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both, in turns, and how far apart they end."""
    jobs = jobs_of(case, seeds, args.batch, args.steps)
    ends, compiled = {}, {}
    for name, job in jobs.items():
        started = time.perf_counter()
        ends[name] = job()
        compiled[name] = time.perf_counter() - started
    apart = max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(*(jax.tree.leaves(e) for e in ends.values()), strict=True))
    seconds, others = common.in_turns(jobs, args.repeats)
    median = common.medians(seconds)
    return {
        "case": case,
        "seeds": seeds,
        "batch": args.batch,
        "steps": args.steps,
        "median": median,
        "seconds": seconds,
        "gain": median["in turn"] / median["vmapped"],
        "apart": apart,
        "first": compiled,
        "others": others,
    }


def main() -> None:
    """Prints a line a case; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[3])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out")
    args = parser.parse_args()
    print(
        f"{jax.devices()[0].device_kind}; {args.steps} steps of {args.batch} images a seed\n"
        f"{'':<24}{'seeds':>6}{'in turn s':>11}{'vmapped s':>11}{'gain':>7}{'apart':>9}"
    )
    rows = []
    for case in args.cases:
        for seeds in args.seeds:
            row = compare(case, seeds, args)
            rows.append(row)
            print(
                f"{case:<24}{seeds:>6}{row['median']['in turn']:>11.3f}{row['median']['vmapped']:>11.3f}"
                f"{row['gain']:>7.2f}{row['apart']:>9.0e}" + ("  (disturbed)" if row["others"] > 0.1 else ""),
                flush=True,
            )
    if args.out:
        common.write(args.out, rows=rows)


if __name__ == "__main__":
    main()
