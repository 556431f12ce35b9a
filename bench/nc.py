"""ncjax.nc against a PyTorch library, a two-look PyTorch version and float64 NumPy, on the same features, in turns.

    python bench/nc.py --rival PATH [--n 50000] [--dims 512 2048] [--classes 10 100 101 1000] [--out FILE.json]

PATH is a checkout of github.com/rhubarbwu/neural-collapse; without it the others run alone. Needs torch. "all" is NC1,
trace ratio, CDNV, NC2, NC3 and NC4; the classifier has no bias, which the rival would ignore. Floors, which the others
do not have, are left out, and their time stands apart. The rival runs at the quickest of batch sizes 1000, 5000 and N.
Medians over turns; a row is marked where other processes took over 10 % of the cores. Memory is the rise of the peak
while a warm contender runs "all" in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np
import torch

from ncjax import nc
from ncjax.nc.null import choose_rows, permuted

METRICS = ("nc1", "trace_ratio", "cdnv", "nc2", "nc3", "nc4")
Job = Callable[[], dict[str, float]]


def make(n: int, dim: int, classes: int) -> tuple[jax.Array, np.ndarray, np.ndarray]:
    """Features [N, D] about random class means, labels with every class present, a classifier [K, D]."""
    rng = np.random.default_rng([n, dim, classes])
    labels = rng.permutation(np.arange(n) % classes)
    means = rng.standard_normal((classes, dim), dtype=np.float32)
    features = means[labels] + rng.standard_normal((n, dim), dtype=np.float32)
    weight = means + rng.standard_normal((classes, dim), dtype=np.float32)
    return jax.block_until_ready(jnp.asarray(features)), labels, weight


def numpy_job(features: np.ndarray, labels: np.ndarray, weight: np.ndarray, everything: bool) -> dict[str, float]:
    """The definitions in float64, in blocks of rows; the reference."""
    count, (n, dim) = len(weight), features.shape
    size = np.bincount(labels, minlength=count)
    means = np.zeros((count, dim))
    for c in range(count):
        means[c] = features[labels == c].astype(np.float64).mean(0)
    centred = means - means.mean(0)
    rank = min(count - 1, dim)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    q, agree, spread = 0.0, 0, np.zeros(count)
    scale = vt[:rank].T / s[:rank]
    for i in range(0, n, 4096):
        h, y = features[i : i + 4096].astype(np.float64), labels[i : i + 4096]
        r = h - means[y]
        q += np.sum(np.square(r @ scale))
        if everything:
            spread += np.bincount(y, np.sum(r * r, axis=1), count)
            near = np.argmax(h @ means.T - 0.5 * np.sum(means * means, axis=1), axis=1)
            agree += np.sum(near == np.argmax(h @ weight.T.astype(np.float64), axis=1))
    if not everything:
        return {"nc1": q / n}
    gram, etf = centred @ centred.T, (np.eye(count) - 1 / count) / np.sqrt(count - 1)
    distance = np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram
    variance, off = spread / size, ~np.eye(count, dtype=bool)
    cross = weight.astype(np.float64) @ centred.T
    return {
        "nc1": q / n,
        "trace_ratio": spread.sum() / n / (np.trace(gram) / count),
        "cdnv": np.mean(((variance[:, None] + variance[None]) / 2)[off] / distance[off]),
        "nc2": np.linalg.norm(gram / np.linalg.norm(gram) - etf),
        "nc3": np.linalg.norm(cross / np.linalg.norm(cross) - etf),
        "nc4": agree / n,
    }


def torch_job(h: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, everything: bool) -> dict[str, float]:
    """Two looks: class means by index_add, then residuals by blocks in the K - 1 directions of the means."""
    count, (n, dim) = len(weight), h.shape
    size = torch.bincount(y, minlength=count)
    means = torch.zeros(count, dim).index_add_(0, y, h) / size[:, None]
    double = means.double()
    centred = double - double.mean(0)
    rank = min(count - 1, dim)
    gram = centred @ centred.T
    if count <= dim:
        values, left = torch.linalg.eigh(gram)
        values, left = values[-rank:], left[:, -rank:]
        basis = centred.T @ left / values.sqrt()
    else:
        values, basis = torch.linalg.eigh(centred.T @ centred)
    whiten = (basis / values.sqrt()).float()
    if everything:
        columns, shift = torch.cat([whiten, means.T, weight.T], 1), 0.5 * means.square().sum(1)
        own, logits = means @ means.T, means @ weight.T
    q, rho, agree = 0.0, torch.zeros(count), 0
    for i in range(0, n, 2000):
        part = y[i : i + 2000]
        r = h[i : i + 2000] - means[part]
        if not everything:
            q += (r @ whiten).square().sum().item()
            continue
        p = r @ columns
        q += p[:, : whiten.shape[1]].square().sum().item()
        rho.index_add_(0, part, r.square().sum(1))
        near = (p[:, whiten.shape[1] : -count] + own[part] - shift).argmax(1)
        agree += (near == (p[:, -count:] + logits[part]).argmax(1)).sum().item()
    if not everything:
        return {"nc1": q / n}
    etf = (torch.eye(count) - 1 / count).double() / np.sqrt(count - 1)
    norms, variance = gram.diagonal(), rho.double() / size
    ratio = (variance[:, None] + variance) / 2 / (norms[:, None] + norms - 2 * gram)
    cross = weight.double() @ centred.T
    return {
        "nc1": q / n,
        "trace_ratio": (rho.double().sum() / n / (norms.sum() / count)).item(),
        "cdnv": ratio[~torch.eye(count, dtype=torch.bool)].mean().item(),
        "nc2": (gram / gram.norm() - etf).norm().item(),
        "nc3": (cross / cross.norm() - etf).norm().item(),
        "nc4": agree / n,
    }


def rival_job(h: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, everything: bool, batch: int) -> dict[str, float]:
    """The library's accumulators and measures as its README uses them."""
    accumulate, measure = (importlib.import_module(f"neural_collapse.{name}") for name in ("accumulate", "measure"))
    (count, dim), n = weight.shape, len(h)
    parts = [slice(i, i + batch) for i in range(0, n, batch)]
    mean = accumulate.MeanAccumulator(count, dim, h.device)
    for part in parts:
        mean.accumulate(h[part], y[part])
    means, middle = mean.compute()
    covariance = accumulate.CovarAccumulator(count, dim, h.device, M=means)
    norms = accumulate.VarNormAccumulator(count, dim, h.device, M=means)
    decisions = accumulate.DecAccumulator(count, dim, h.device, M=means, W=weight)
    for part in parts:
        covariance.accumulate(h[part], y[part], means)
        if everything:
            norms.accumulate(h[part], y[part], means)
            decisions.accumulate(h[part], y[part], weight, means)
    within = covariance.compute()
    found = {"nc1": measure.covariance_ratio(within, means, middle)}
    if not everything:
        return found
    # Untiled where its K x K x D array fits; else the largest tile that its tiling does not crash on.
    tile = None if 4 * count * count * dim < 2e9 else next(t for t in (128, 64, 32) if count % t != 1)
    return found | {
        "trace_ratio": measure.covariance_ratio(within, means, middle, "quotient"),
        "cdnv": measure.variability_cdnv(norms.compute()[0], means, tile_size=tile),
        "nc2": measure.simplex_etf_error(means, middle),
        "nc3": measure.self_duality_error(weight, means, middle),
        "nc4": measure.clf_ncc_agreement(decisions),
    }


def ncjax_job(h: jax.Array, y: np.ndarray, weight: np.ndarray, everything: bool) -> dict[str, float]:
    """`measure`, with decisions and a classifier or without; its intervals and flags come along."""
    if not everything:
        return {"nc1": nc.measure(h, y, decisions=False, floors=False).nc1}
    report = nc.measure(h, y, classifier=(weight, np.zeros(len(weight), np.float32)), floors=False)
    return {name: getattr(report, name) for name in METRICS}


def jobs(n: int, dim: int, classes: int, everything: bool, rival: bool) -> dict[str, Job]:
    """The contenders, on one copy of the features; the rival once for each batch size."""
    h, y, weight = make(n, dim, classes)
    th, ty, tw = torch.from_dlpack(h), torch.from_numpy(y), torch.from_numpy(weight)
    found: dict[str, Job] = {
        "ncjax": lambda: ncjax_job(h, y, weight, everything),
        "torch, two looks": lambda: torch_job(th, ty, tw, everything),
    }
    for batch in (1000, 5000, n) if rival else ():
        found[f"rival, batch {batch}"] = lambda batch=batch: rival_job(th, ty, tw, everything, batch)
    found["numpy float64"] = lambda: numpy_job(np.asarray(h), y, weight, everything)
    return found


def limits(n: int, dim: int, classes: int) -> dict[str, float]:
    """Seconds to read the features once, to multiply them by K columns, both compiled by XLA, and to draw floors."""
    h, y, weight = make(n, dim, classes)
    columns = jnp.asarray(weight.T)
    read, product = jax.jit(jnp.sum), jax.jit(lambda h, a: jnp.matmul(h, a, precision="highest"))
    runs = {"read": lambda: jax.block_until_ready(read(h)), "product": lambda: jax.block_until_ready(product(h, columns))}
    counts, rows = np.bincount(y, minlength=classes), choose_rows(n, classes)
    runs["floors"] = lambda: permuted(np.asarray(h[rows]), counts)
    return {name: statistics.median(common.timed(job)[0] for _ in range(5)) for name, job in runs.items()}


def compare(args: argparse.Namespace, dim: int, classes: int, everything: bool) -> dict[str, Any]:
    """One row: all contenders in turns."""
    contenders = jobs(args.n, dim, classes, everything, args.rival is not None)
    first, warm = {}, {}
    for name, job in contenders.items():
        started = time.perf_counter()
        job()
        first[name] = time.perf_counter() - started
        warm[name] = common.timed(job)
    best = min((k for k in contenders if k.startswith("rival")), key=lambda k: warm[k][0], default=None)
    names = [k for k in contenders if not k.startswith(("rival", "numpy")) or k == best]
    seconds, others = common.in_turns({name: contenders[name] for name in names}, args.repeats)
    wanted = warm["numpy float64"][1]
    error = {name: {m: abs(warm[name][1][m] / wanted[m] - 1) for m in wanted} for name in names}
    median = common.medians(seconds) | {"numpy float64": warm["numpy float64"][0]}
    return {
        "dim": dim,
        "classes": classes,
        "job": "all" if everything else "nc1",
        "median": median,
        "seconds": seconds,
        "ratio": {name: median[name] / median["ncjax"] for name in median},
        "error": error,
        "limit": limits(args.n, dim, classes),
        "compile": first["ncjax"] - warm["ncjax"][0],
        "others": others,
        "load": os.getloadavg()[0],
    }


def peak(args: argparse.Namespace, dim: int, classes: int, name: str) -> float | None:
    """Peak memory of "all" beyond the features, in MB, in a process of its own."""
    command = [sys.executable, __file__, "--child", name, "--n", str(args.n), "--dims", str(dim), "--classes", str(classes)]
    done = subprocess.run(command + (["--rival", args.rival] if args.rival else []), capture_output=True, text=True)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else None


def child(args: argparse.Namespace) -> None:
    """Prints how far the peak memory rises while one contender runs once."""
    contenders = jobs(args.n, args.dims[0], args.classes[0], True, args.rival is not None)
    contenders[args.child]()  # compiles
    print(common.rise_of_peak(contenders[args.child]))


def show(row: dict[str, Any]) -> None:
    """Prints a row."""
    mark = "  (disturbed)" if row["others"] > 0.1 else ""
    print(
        f"\nD={row['dim']} K={row['classes']} {row['job']}: one read {1e3 * row['limit']['read']:.1f} ms, N D K product "
        f"{1e3 * row['limit']['product']:.1f} ms, floors {1e3 * row['limit']['floors']:.0f} ms; compile "
        f"{row['compile']:.1f} s; others {100 * row['others']:.0f} % of "
        f"the cores, load {row['load']:.2f}{mark}"
    )
    for name, median in row["median"].items():
        spread = row["seconds"].get(name, [median])
        worst = max(row["error"].get(name, {"": 0.0}).values())
        memory = row.get("peak_mb", {}).get(name)
        print(
            f"  {name:<20}{1e3 * median:>9.1f} ms ({1e3 * min(spread):.1f} to {1e3 * max(spread):.1f})  "
            f"{row['ratio'][name]:>6.2f} x  error {worst:.1e}" + (f"  +{memory:.0f} MB" if memory is not None else ""),
            flush=True,
        )


def main() -> int:
    """Exit code 0, or 2 with one line where the rival's checkout is not there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rival", help="a checkout of rhubarbwu/neural-collapse")
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 101, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rival is not None:
        if not (Path(args.rival) / "neural_collapse").is_dir():
            print(
                f"bench/nc.py: no folder {args.rival}/neural_collapse; give a checkout of rhubarbwu/neural-collapse",
                file=sys.stderr,
            )
            return 2
        sys.path.insert(0, args.rival)
    if args.child:
        child(args)
        return 0
    rows = []
    for dim in args.dims:
        for classes in args.classes:
            for everything in (False, True):
                row = compare(args, dim, classes, everything)
                if everything:
                    row["peak_mb"] = {name: peak(args, dim, classes, name) for name in row["seconds"]}
                show(row)
                rows.append(row)
    if args.out:
        common.write(args.out, n=args.n, repeats=args.repeats, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
