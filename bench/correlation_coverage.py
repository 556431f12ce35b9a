"""Do intervals of rank correlations over networks cover, where networks come in families? A null simulation.

    python bench/correlation_coverage.py [--draws 1000] [--out FILE.json]        # some minutes on 2 cores

Predictor and accuracy of twelve networks in seven families (one of three, one of four: configs/paper/e1.py) or eight in
six, on five targets: Gaussian, a share `icc` of the variance common to a family, 90 % of it to all targets, correlated
by `rho`. Three intervals of the mean Spearman correlation: percentiles of a bootstrap of networks, of a bootstrap of
families, and the jackknife over families that `ncjax.evidence.correlation` uses. Each should cover the mean over draws
in 95 %.
"""

from __future__ import annotations

import argparse

import common
import numpy as np
from scipy import stats

from ncjax.evidence import correlation

FAMILIES = {"twelve": [0, 1, 2, 3, 4, 4, 4, 5, 6, 6, 6, 6], "eight": [0, 1, 2, 3, 4, 4, 4, 5]}
TARGETS, COMMON, RESAMPLES = 5, 0.9, 300


def field(rng: np.random.Generator, owner: np.ndarray, icc: float) -> np.ndarray:
    """[targets, networks] standard Gaussians, alike within families and over targets."""

    def one(*shape: int) -> np.ndarray:
        within = rng.normal(size=(*shape, len(owner))) * np.sqrt(1 - icc)
        return within + rng.normal(size=(*shape, owner.max() + 1))[..., owner] * np.sqrt(icc)

    return np.sqrt(COMMON) * one() + np.sqrt(1 - COMMON) * one(TARGETS)


def means(x: np.ndarray, y: np.ndarray, resamples: list[np.ndarray]) -> list[float]:
    """Mean Spearman correlation over targets of every resample, those of one length together."""
    out: list[float] = []
    for length in {len(rows) for rows in resamples}:
        rows = np.stack([r for r in resamples if len(r) == length])
        a, b = (stats.rankdata(z[:, rows], axis=-1) for z in (x, y))  # [targets, resamples, length]
        a, b = (z - z.mean(axis=-1, keepdims=True) for z in (a, b))
        with np.errstate(invalid="ignore"):
            rho = np.sum(a * b, axis=-1) / np.sqrt(np.sum(a * a, axis=-1) * np.sum(b * b, axis=-1))
        out += rho.mean(axis=0).tolist()
    return out


def intervals(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, owner: np.ndarray) -> dict[str, tuple[float, ...]]:
    """(value, low, high) by method."""
    groups = [np.flatnonzero(owner == g) for g in range(owner.max() + 1)]

    networks = means(x, y, list(rng.choice(len(owner), (RESAMPLES, len(owner)))))
    drawn = rng.choice(len(groups), (RESAMPLES, len(groups)))
    families = means(x, y, [np.concatenate([groups[g] for g in row]) for row in drawn])
    found = correlation.over_networks(list(zip(x, y, strict=True)), correlation.spearman, families=[str(f) for f in owner])
    assert found is not None, "there are enough of them"
    return {
        "bootstrap of networks": (found.value, *np.nanpercentile(networks, [2.5, 97.5])),
        "bootstrap of families": (found.value, *np.nanpercentile(families, [2.5, 97.5])),
        "jackknife of families": found[:3],
    }


def main() -> None:
    """Prints a row a setting; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out")
    args = parser.parse_args()
    rows = []
    for name, owner in FAMILIES.items():
        for icc in (0.0, 0.5, 0.9):
            for rho in (0.0, 0.9):
                rng, families = np.random.default_rng(args.seed), np.array(owner)
                found = []
                for _ in range(args.draws):
                    x = field(rng, families, icc)
                    y = rho * x + np.sqrt(1 - rho**2) * field(rng, families, icc)
                    found.append(intervals(rng, x, y, families))
                truth = float(np.mean([f["jackknife of families"][0] for f in found]))
                row = {"networks": name, "icc": icc, "rho": rho, "mean": truth}
                for how in found[0]:
                    each = np.array([f[how] for f in found])
                    row[how] = {
                        "coverage": float(np.mean((each[:, 1] <= truth) & (truth <= each[:, 2]))),
                        "leaves_out_zero": float(np.mean((each[:, 1] > 0) | (each[:, 2] < 0))),
                        "width": float(np.median(each[:, 2] - each[:, 1])),
                    }
                rows.append(row)
                text = "  ".join(
                    f"{how} {100 * row[how]['coverage']:.1f} ({100 * row[how]['leaves_out_zero']:.1f})" for how in found[0]
                )
                print(f"{name:<8} icc {icc} rho {rho}: covers % (leaves out 0 %)  {text}", flush=True)
    if args.out:
        common.write(args.out, draws=args.draws, seed=args.seed, rows=rows)


if __name__ == "__main__":
    main()
