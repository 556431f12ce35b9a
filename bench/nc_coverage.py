"""Do the 95 % intervals of `ncjax.nc` hold? A simulation.

    python bench/nc_coverage.py [--draws 500] [--out FILE.json]        # about 2 minutes on 2 cores

In each setting the K class means are drawn once and then stay; every draw takes as many examples of each class about them.
The interval of a draw should cover the mean of the metric over draws (of these and as many others) in 95 % of them.
`bench/nc_floors.py` has the floors.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import common
import numpy as np

from ncjax import nc
from ncjax.nc.report import TRUSTED


class Setting(NamedTuple):
    """What is drawn, and how it is measured."""

    n: int  # examples a class, on average
    classes: int
    dim: int
    norm: float  # of the class means
    noise: str = "gauss"
    spread: float = 1.0  # largest class over smallest
    weighting: str = "class"


SETTINGS = {
    "collapsed": Setting(50, 10, 64, 30.0),
    "collapsed, wide": Setting(50, 10, 512, 60.0),
    "moderate": Setting(100, 10, 64, 8.0),
    "moderate, few": Setting(20, 10, 128, 20.0),
    "five examples": Setting(5, 10, 64, 20.0),
    "five examples, uneven directions": Setting(5, 10, 128, 20.0, "spectrum"),
    "two examples": Setting(2, 10, 64, 20.0),
    "many classes": Setting(20, 40, 64, 8.0),
    "two classes": Setting(200, 2, 32, 4.0),
    "more classes than features": Setting(30, 40, 16, 8.0),
    "uneven directions": Setting(100, 10, 64, 8.0, "spectrum"),
    "uneven classes": Setting(100, 10, 64, 8.0, "classes"),
    "heavy tails": Setting(200, 10, 64, 8.0, "tails"),
    "rectified": Setting(100, 10, 64, 8.0, "relu"),
    "weak signal": Setting(100, 10, 64, 1.0),
    "no signal": Setting(50, 10, 256, 0.0),
    "very unequal sizes": Setting(100, 10, 64, 8.0, spread=300),
    "unequal sizes": Setting(60, 10, 64, 8.0, "spectrum", 20),
    "unequal sizes, by sample": Setting(60, 10, 64, 8.0, "spectrum", 20, "sample"),
}


def draw(rng: np.random.Generator, means: np.ndarray, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, D] float32 and labels."""
    count, dim = means.shape
    sizes = np.geomspace(1, setting.spread, count)
    labels = np.repeat(np.arange(count), np.round(sizes / sizes.mean() * setting.n).astype(int))
    shape = (len(labels), dim)
    noise = rng.standard_t(6, size=shape) if setting.noise == "tails" else rng.normal(size=shape)
    if setting.noise == "spectrum":
        noise *= np.arange(1, dim + 1) ** -0.5 * 2
    if setting.noise == "classes":
        noise *= np.linspace(0.5, 2, count)[labels][:, None]
    features = means[labels] + noise
    return (np.maximum(features, 0) if setting.noise == "relu" else features).astype(np.float32), labels


def simulate(name: str, draws: int, seed: int) -> dict[str, object]:
    """Coverage of the intervals, with and without a second look, for one setting."""
    setting = SETTINGS[name]
    rng = np.random.default_rng([seed, list(SETTINGS).index(name)])
    means = rng.normal(size=(setting.classes, setting.dim))
    means *= setting.norm / np.linalg.norm(means, axis=1, keepdims=True)
    looked, streamed, truth = [], [], []
    for i in range(2 * draws):
        features, labels = draw(rng, means, setting)
        report = nc.measure(features, labels, floors=False, weighting=setting.weighting)
        values = [getattr(report, metric) for metric in TRUSTED]
        if i % 2:
            truth.append(values)
            continue
        looked.append((values, [report.interval[m] for m in TRUSTED]))
        plain = nc.report(nc.collect(features, labels), floors=False, weighting=setting.weighting)
        streamed.append([plain.interval[m] for m in TRUSTED])
    truth = np.mean(truth + [values for values, _ in looked], axis=0)
    out: dict[str, object] = {**setting._asdict(), "draws": draws}
    for j, metric in enumerate(TRUSTED):
        inside = [low <= truth[j] <= high for _, intervals in looked for low, high in [intervals[j]]]
        plain = [low <= truth[j] <= high for intervals in streamed for low, high in [intervals[j]] if np.isfinite(low)]
        out[metric] = {
            "mean": float(truth[j]),
            "sd": float(np.std([v[j] for v, _ in looked])),
            "coverage": float(np.mean(inside)),
            "coverage_from_statistics": float(np.mean(plain)) if plain else None,  # directional CDNV takes a look
        }
    return out


def main() -> None:
    """Prints a row a setting; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("--out")
    args = parser.parse_args()
    print(f"{'setting':<34}{'n':>5}{'K':>4}{'D':>5}   coverage % of {', '.join(TRUSTED)} (from statistics alone)")
    rows = {}
    for name in args.settings:
        row = rows[name] = simulate(name, args.draws, args.seed)
        cover = "  ".join(
            f"{100 * row[m]['coverage']:5.1f}"
            + ("" if (alone := row[m]["coverage_from_statistics"]) is None else f" ({100 * alone:5.1f})")
            for m in TRUSTED
        )
        print(f"{name:<34}{row['n']:>5}{row['classes']:>4}{row['dim']:>5}   {cover}", flush=True)
    if args.out:
        common.write(args.out, draws=args.draws, seed=args.seed, rows=rows)


if __name__ == "__main__":
    main()
