"""What does measuring every layer cost beside the forward pass, and is it right?

    python bench/layers.py [--model 'models.resnet.resnet18()'] [--classes 100] [--images 1024] [--out FILE.json]

One pass over images with the statistics of all blocks kept, against the same pass with none (loss and accuracy alone), in
turns; then NC1 and CDNV of every block against two-look float64 NumPy on the saved features. Weights are random and
images a seeded draw, on which the cost does not depend, unless --init names a trained run and --data a data set.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import common
import jax
import numpy as np

from ncjax import nc
from ncjax.core import mesh
from ncjax.core.roles import MODEL, resolve
from ncjax.core.types import widths
from ncjax.data import Data, Dataset, batches_of, load
from ncjax.features import passes
from ncjax.losses import cross_entropy
from ncjax.networks.load import Init
from ncjax.networks.load import load as load_network


def two_look(h: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """NC1 and CDNV by their definitions in float64."""
    h = h.astype(np.float64)
    classes = [c for c in np.unique(y) if np.sum(y == c) >= 2]
    parts = [h[y == c] for c in classes]
    means = np.stack([part.mean(0) for part in parts])
    residual = np.concatenate([part - part.mean(0) for part in parts])
    centred = means - means.mean(0)
    rank = min(len(classes) - 1, h.shape[1])
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    variance = np.array([np.square(part - part.mean(0)).sum(1).mean() for part in parts])
    gram = centred @ centred.T
    distance = np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram
    off = ~np.eye(len(classes), dtype=bool)
    return {
        "nc1": float(np.sum(np.square(residual @ vt[:rank].T) / np.square(s[:rank])) / len(residual)),
        "cdnv": float(np.mean(((variance[:, None] + variance[None]) / 2)[off] / distance[off])),
    }


def random_images(args: argparse.Namespace, scratch: Path) -> Dataset:
    """A data set of noise images with balanced labels, its class means apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(args.images) % args.classes
    tint = rng.integers(0, 128, (args.classes, 1, 1, 3))
    images = (tint[labels] + rng.integers(0, 128, (args.images, args.size, args.size, 3))).astype(np.uint8)
    path = scratch / "images.npz"
    np.savez(
        path,
        x_train=images,
        y_train=labels,
        x_test=images[: args.classes],
        y_test=labels[: args.classes],
        class_names=np.array([f"c{i:03d}" for i in range(args.classes)]),
    )
    return load(Data(f"npz:{path}", val_fraction=0.0))


def compare(args: argparse.Namespace, dataset: Dataset) -> dict[str, object]:
    """Seconds of each kind of pass, taken in turns, and the relative error of every layer."""
    devices = mesh.make()
    if args.init:
        _, model, variables = load_network(Init(args.init))
    else:
        model = resolve(args.model, MODEL)(num_classes=len(dataset.class_names), projection_layers=0)
        variables = jax.jit(model.init, static_argnums=1)(jax.random.key(0), dataset.image_shape)
    batches = batches_of(dataset.splits["train"], dataset, devices, batch_size=args.batch)
    dims = widths(model, variables, dataset.image_shape)
    runs = {
        "plain": passes.make_pass(model, cross_entropy(), dims, devices),
        "measured": passes.make_pass(model, cross_entropy(), dims, devices, stats=model.layers),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(args.repeats + 1):
        for name in list(runs)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            jax.block_until_ready(runs[name](variables, batches).stats)
            if turn:  # the first turn compiles
                seconds[name].append(time.perf_counter() - started)
    keep = passes.make_pass(model, cross_entropy(), dims, devices, stats=model.layers, keep=model.layers)
    seen, error = keep(variables, batches), {}
    for layer in model.layers:
        wanted = two_look(seen.features[layer], seen.labels)
        found = {"nc1": float(nc.nc1(seen.stats[layer])), "cdnv": float(nc.cdnv(seen.stats[layer]))}
        error[layer] = max(abs(found[m] / wanted[m] - 1) for m in wanted)
    median = common.medians(seconds)
    return {
        "model": args.model,
        "init": args.init,
        "data": args.data or "random images",
        "images": batches.size,
        "image_shape": dataset.image_shape,
        "batch": args.batch,
        "classes": len(dataset.class_names),
        "seconds": seconds,
        "median": median,
        "extra_percent": 100 * (median["measured"] / median["plain"] - 1),
        "relative_error": error,
    }


def main() -> None:
    """Prints seconds a pass with and without statistics, and the largest error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models.resnet.resnet18()")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--init", help="a run whose trained network to measure, in place of --model")
    parser.add_argument("--data", help="a data set name in place of random images")
    parser.add_argument("--out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(args, load(Data(args.data, val_fraction=0.0)) if args.data else random_images(args, Path(scratch)))
    print(
        f"{args.init or args.model}, {found['images']} images {found['image_shape']}, batch {args.batch}, "
        f"{len(found['relative_error'])} layers, {found['classes']} classes; load {os.getloadavg()[0]:.2f}"
    )
    for name, s in found["seconds"].items():
        rate = found["images"] / found["median"][name]
        print(f"{name:<9} {found['median'][name]:.3f} s ({min(s):.3f} to {max(s):.3f})  {rate:,.0f} images/s")
    print(
        f"measuring costs {found['extra_percent']:.1f} % of the forward pass; largest relative error against float64: "
        f"{max(found['relative_error'].values()):.1e}"
    )
    if args.out:
        common.write(args.out, **found)


if __name__ == "__main__":
    main()
