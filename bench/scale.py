"""How do time and memory grow? Classes, images, and the examples of a probe, each size in a process of its own.

    python bench/scale.py classes [--sizes 1000 4096 10000 29000] [--dim 768] [--each 5] [--out FILE.json]
    python bench/scale.py images [--sizes 500 1000 2000] [--side 224] [--model 'models.resnet.resnet50(stem=imagenet)']
    python bench/scale.py probe [--sizes 50000 200000] [--dim 768] [--classes 1000]

classes: `nc.measure` with a classifier, --each examples of each. images: a folder of JPEGs, 500 x 375 pixels, streamed
through a network, statistics of every block and the last features kept; the folder's files are links to a few. probe: one
strength to the solver's own tolerance, beside scikit-learn's lbfgs and torch's LBFGS to the same gradient (--rivals, of
which the second needs torch). Memory is the peak of the process less what it held before the job, inputs included before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import jax
import numpy as np

SIZES = {"classes": [1000, 4096, 10_000, 29_000], "images": [500, 1000, 2000], "probe": [50_000, 200_000]}
Row = dict[str, Any]


def timed(job: Callable[[], Any]) -> tuple[Any, Row]:
    """What a job returns; its seconds and how far the peak memory rises, compiling included: it runs once."""
    found: list[Any] = []
    started = time.perf_counter()
    megabytes = common.rise_of_peak(lambda: found.append(job()))
    return found[0], {"seconds": time.perf_counter() - started, "megabytes": megabytes}


def classes(count: int, args: argparse.Namespace) -> Row:
    """Everything that `nc.measure` finds for so many classes."""
    from ncjax import nc

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(count), args.each)
    means = rng.standard_normal((count, args.dim), dtype=np.float32)
    features = jax.device_put(means[labels] + rng.standard_normal((len(labels), args.dim), dtype=np.float32))
    weight = means + rng.standard_normal((count, args.dim), dtype=np.float32)
    report, row = timed(lambda: nc.measure(features, labels, classifier=(weight, None)))
    return {"classes": count, "examples": len(labels), **row, "nc1": report.nc1, "notes": report.notes}


def folder(root: Path, count: int) -> None:
    """`count` JPEGs in ten classes, links to a hundred of noise; a tenth of them again for testing."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(100):
        coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(root / f"{i}.jpg", quality=90)
    for split, size in (("train", count), ("test", count // 10)):
        for i in range(size):
            into = root / "set" / split / f"class{i % 10}"
            into.mkdir(parents=True, exist_ok=True)
            os.link(root / f"{i % 100}.jpg", into / f"{i}.jpg")


def images(count: int, args: argparse.Namespace) -> Row:
    """A pass over a folder."""
    from ncjax.core import mesh
    from ncjax.core.roles import MODEL, resolve
    from ncjax.core.types import widths
    from ncjax.data import Data, batches_of, load
    from ncjax.features import passes
    from ncjax.losses import cross_entropy

    with tempfile.TemporaryDirectory() as root:
        folder(Path(root), count)
        dataset = load(Data(f"folder:{root}/set", image_size=args.side, val_fraction=0.0, resident_bytes=0))
        devices, split = mesh.make(), dataset.splits["train"]
        model = resolve(args.model, MODEL)(num_classes=10, projection_layers=0)
        variables = jax.jit(model.init, static_argnums=1)(jax.random.key(0), dataset.image_shape)
        batches = batches_of(split, dataset, devices, batch_size=args.batch)
        dims = widths(model, variables, dataset.image_shape)
        run = passes.make_pass(
            model, cross_entropy(), dims, devices, stats=model.layers, keep=[model.penultimate], scatter=False
        )
        seen, row = timed(lambda: run(variables, batches))
        return {
            "images": count,
            **row,
            "images_per_second": count / row["seconds"],
            "waiting_for_images": seen.waited,
            "features_megabytes": seen.features[model.penultimate].nbytes / 1e6,
        }


def probe(count: int, args: argparse.Namespace) -> Row:
    """One probe, by one solver."""
    from probe import judged

    from ncjax.transfer import logistic as ours

    rng = np.random.default_rng(0)
    y = rng.integers(0, args.classes, count)
    means = rng.standard_normal((args.classes, args.dim), dtype=np.float32) * np.float32(5 / np.sqrt(2 * args.dim))
    x = means[y] + rng.standard_normal((count, args.dim), dtype=np.float32)
    solvers = {"ncjax": lambda: np.asarray(ours.solve(x, y, args.classes, (args.l2,))[0].params)}
    solvers |= {"sklearn": lambda: _sklearn(x, y, args.l2, ours.TOLERANCE), "torch": lambda: _torch(x, y, args)}
    params, row = timed(solvers[args.solver])
    return {"solver": args.solver, "count": count, **row, "gradient": judged(params, x, y, args.l2)[1]}


def _sklearn(x: np.ndarray, y: np.ndarray, l2: float, tolerance: float) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (l2 * len(x)), tol=tolerance, max_iter=10_000).fit(x, y)
    return np.concatenate([model.coef_, model.intercept_[:, None]], axis=1)


def _torch(x: np.ndarray, y: np.ndarray, args: argparse.Namespace) -> np.ndarray:
    import torch

    features, labels = torch.from_numpy(x), torch.from_numpy(y)
    params = torch.zeros(args.classes, args.dim + 1, requires_grad=True)
    solver = torch.optim.LBFGS(
        [params], max_iter=1000, tolerance_grad=1e-4, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        solver.zero_grad()
        logits = features @ params[:, :-1].T + params[:, -1]
        loss = torch.nn.functional.cross_entropy(logits, labels) + args.l2 / 2 * params[:, :-1].square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return params.detach().numpy()


def main() -> None:
    """Prints a line a size; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=list(SIZES))
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--each", type=int, default=5)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--model", default="models.resnet.resnet50(stem=imagenet)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--l2", type=float, default=1e-3)
    parser.add_argument("--rivals", nargs="*", default=["sklearn", "torch"], choices=["sklearn", "torch"])
    parser.add_argument("--out")
    parser.add_argument("--solver", help=argparse.SUPPRESS)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print("row " + json.dumps({"classes": classes, "images": images, "probe": probe}[args.what](args.child, args)))
        return
    rows: list[Row] = []
    for size in args.sizes or SIZES[args.what]:
        for solver in ["ncjax", *(args.rivals if args.what == "probe" else [])]:
            command = [sys.executable, __file__, *sys.argv[1:], "--child", str(size), "--solver", solver]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found = next((x for x in done.stdout.splitlines() if x.startswith("row ")), None)
            row = json.loads(found[4:]) if found else {"size": size, "solver": solver, "failed": done.stderr[-300:]}
            rows.append(row)
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
            if args.out:
                common.write(args.out, rows=rows)


if __name__ == "__main__":
    main()
