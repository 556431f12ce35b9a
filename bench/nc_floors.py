"""Are the floors of `ncjax.nc` what the metrics are under permuted labels, on features of real networks?

    python bench/nc_floors.py --init weights/*.npz --data npz:data/dtd10.npz ... [--shots 5 20 100] [--out FILE.json]

For every network, target, number of images per class and layer: the median of each metric over 20 permutations of the
labels, measured one by one; the floor drawn from the features (`permuted`) and from the scatter (`rotated`) over it. The
median itself has noise: `noise` is its standard error, as a share. On the first target classes are also taken unequal, of 2
images and more. Seconds are those of the pass that gave all layers' features and of their floors.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import common
import numpy as np

from ncjax import nc
from ncjax.core.mesh import make
from ncjax.data import Data
from ncjax.nc import null
from ncjax.networks.load import Init, load, load_data_for
from ncjax.transfer import layerwise
from ncjax.transfer.scored import spaced

PERMUTATIONS = 20
WITHIN = 0.1  # of the median: the goal


def subset(labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The first examples of each class, `counts` of them."""
    return np.sort(np.concatenate([np.flatnonzero(labels == k)[:n] for k, n in enumerate(counts)]))


def compare(features: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, dict[str, float]]:
    """{metric: median over permutations, its noise, and both floors over it}; seconds of the first floor."""
    rng = np.random.default_rng(1)
    options = {"num_classes": classes, "floors": False}
    reports = [nc.measure(features, rng.permutation(labels), **options) for _ in range(PERMUTATIONS)]
    stats = nc.collect(features, labels, num_classes=classes)
    started = time.perf_counter()
    drawn = null.null_draws(stats, features[null.choose_rows(len(features), classes)])
    seconds = time.perf_counter() - started
    turned, out = null.null_draws(stats), {"seconds": seconds}
    for name in null.FLOORED:
        values = np.array([getattr(r, name) for r in reports])
        median = float(np.median(values))
        out[name] = {"median": median, "noise": float(1.25 * np.log(values).std(ddof=1) / np.sqrt(len(values)))}
        for how, draws in (("permuted", drawn), ("rotated", turned)):
            out[name][how] = float(null.standing(np.nan, draws[name]).floor / median)
    return out


def main() -> None:
    """Prints a row a layer, then how many are within the goal; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--init", nargs="+", required=True)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 20, 100])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--largest", type=int, default=128, help="image side")
    parser.add_argument("--images", type=int, default=10_000, help="training images of a target, at most")
    parser.add_argument("--out")
    args = parser.parse_args()
    rows = []
    for init in args.init:
        network = load(Init(init))
        for data in args.data:
            side = args.largest if network.card.image_shape[0] > args.largest else None
            whole = load_data_for(network.card, Data(data, image_size=side))
            classes = len(whole.class_names)
            per_class = max(s for s in args.shots if s * classes <= args.images)
            counts = np.minimum(np.bincount(whole.splits["train"].labels, minlength=classes), per_class)
            dataset = load_data_for(network.card, Data(data, image_size=side, n_per_class=int(counts.min())))
            dataset = dataset._replace(splits={"train": dataset.splits["train"]})
            started = time.perf_counter()
            options = layerwise.Measurement(batch_size=64, probes=True)
            seen = layerwise.extract(network, dataset, make(), options, classifier=None).seen["train"]
            seconds = time.perf_counter() - started
            wanted = {n: np.full(classes, n) for n in sorted({min(s, counts.min()) for s in args.shots})}
            if data == args.data[0]:
                wanted["unequal"] = np.geomspace(2, counts.min(), classes).round().astype(int)
            for shots, sizes in wanted.items():
                at = subset(seen.labels, sizes)
                for layer in spaced(tuple(seen.features), args.layers):
                    features = seen.features[layer][at]
                    found = compare(features, seen.labels[at], classes)
                    row = {"network": Path(init).stem, "target": Path(data).stem, "shots": str(shots), "layer": layer}
                    row |= {"dim": features.shape[1], "pass_seconds": seconds, **found}
                    rows.append(row)
                    print(
                        f"{row['network']:<24}{row['target']:<12}{shots!s:>8} {layer:<10}{features.shape[1]:>5}  "
                        + "  ".join(
                            f"{name} {x['median']:8.4g} +-{100 * x['noise']:.0f} % {x['permuted']:.2f} ({x['rotated']:.2f})"
                            for name in null.FLOORED
                            for x in [found[name]]
                        ),
                        flush=True,
                    )
    summary = {}
    for name in null.FLOORED:
        for how in ("permuted", "rotated"):
            ratio = np.array([r[name][how] for r in rows])
            noise = np.array([r[name]["noise"] for r in rows])
            if np.isnan(ratio).all():
                continue
            away = np.abs(np.log(ratio))
            summary[f"{name}, {how}"] = {
                "rows": len(rows),
                "within_10_percent": float(np.mean(away <= np.log1p(WITHIN))),
                "within_10_percent_or_two_standard_errors": float(np.mean(away <= np.maximum(np.log1p(WITHIN), 2 * noise))),
                "of_rows_with_noise_below_4_percent": float(np.mean(away[noise < 0.04] <= np.log1p(WITHIN))),
                "median_ratio": float(np.median(ratio)),
                "worst": float(ratio[np.argmax(away)]),
            }
            print(f"{name}, {how}: {summary[f'{name}, {how}']}")
    if args.out:
        common.write(args.out, permutations=PERMUTATIONS, summary=summary, rows=rows)


if __name__ == "__main__":
    main()
