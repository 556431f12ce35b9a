"""How fast is the linear probe? `logistic.solve` against scikit-learn's logistic regression, same objective and tolerance.

    python bench/probe.py [--count 50000] [--dim 512] [--classes 10 100] [--apart 5] [--l2 1e-3] [--out FILE.json]
    python bench/probe.py --init weights.npz --model models.resnet.resnet20 --data npz:cifar100.npz

min (1/N) sum cross-entropy + l2/2 ||W||^2, for scikit-learn C = 1/(l2 N), until the largest entry of the gradient is at
most 1e-4; where each ends is judged in float64. scikit-learn tries lbfgs in float32 and float64, newton-cg, and, where its
square matrix fits, newton-cholesky (one that takes twice the best so far is stopped), and the fastest counts. "path" is
the grid of strengths that a fit tries, from strong to weak, each from where the last one ended; there scikit-learn has its
best for the weakest. Features are Gaussian (variances that fall as 1/i in directions turned at random; class means --apart
standard deviations from one another), or, with --data, those of every block of a network side by side; all are
standardised first, outside the clock. Everyone runs in turns and warm; the first call, which compiles, is timed apart.
"""

from __future__ import annotations

import argparse
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

import common
import jax
import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression

from ncjax.core import mesh
from ncjax.core.types import widths
from ncjax.data import Data, batches_of
from ncjax.features import passes
from ncjax.losses import cross_entropy
from ncjax.networks.load import Init, load, load_data_for
from ncjax.transfer import logistic, probe

NEWTON_LIMIT = 6000  # weights; newton-cholesky factors a square matrix of as many rows
SOLVERS = ("lbfgs float32", "lbfgs float64", "newton-cg float32", "newton-cholesky float64")
Fit = Callable[[], list[np.ndarray]]  # [K, D + 1] for every strength, the bias last


def synthetic(count: int, dim: int, classes: int, apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, D] and labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    scale = np.arange(1, dim + 1) ** -0.5
    means = apart / np.sqrt(2 * dim) * rng.normal(size=(classes, dim))
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    return (((rng.normal(size=(count, dim)) + means[labels]) * scale) @ turn).astype(np.float32), labels


def of_network(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features of every block, side by side, of a data set's training images."""
    found, model, variables = load(Init(args.init, which="last", model=args.model))
    dataset, devices = load_data_for(found, Data(args.data, val_fraction=0.0)), mesh.make()
    dims = widths(model, variables, dataset.image_shape)
    run_pass = passes.make_pass(model, cross_entropy(), dims, devices, keep=model.backbone)
    seen = run_pass(variables, batches_of(dataset.splits["train"], dataset, devices, batch_size=256))
    return np.concatenate([seen.features[b] for b in model.backbone], axis=1), seen.labels


def judged(params: np.ndarray, x: np.ndarray, y: np.ndarray, l2: float) -> tuple[float, float]:
    """(objective, largest entry of its gradient) in float64, in parts of the examples."""
    weight, bias = params[:, :-1].astype(np.float64), params[:, -1].astype(np.float64)
    value, of_weight, of_bias = 0.0, np.zeros_like(weight), np.zeros_like(bias)
    for i in range(0, len(y), 10_000):
        h, labels = x[i : i + 10_000].astype(np.float64), y[i : i + 10_000]
        logits = h @ weight.T + bias
        logits -= logits.max(axis=1, keepdims=True)
        p = np.exp(logits)
        p /= p.sum(axis=1, keepdims=True)
        rows = np.arange(len(labels))
        value -= np.log(p[rows, labels]).sum()
        p[rows, labels] -= 1
        of_weight, of_bias = of_weight + p.T @ h, of_bias + p.sum(axis=0)
    value = value / len(y) + l2 / 2 * np.square(weight).sum()
    return float(value), float(max(np.abs(of_weight / len(y) + l2 * weight).max(), np.abs(of_bias / len(y)).max()))


def ours(x: np.ndarray, y: np.ndarray, classes: int, path: tuple[float, ...]) -> Fit:
    """`logistic.solve` down a path."""
    return lambda: [np.asarray(s.params) for s in logistic.solve(x, y, classes, path)]


def rival(x: np.ndarray, y: np.ndarray, path: tuple[float, ...], solver: str) -> Fit:
    """scikit-learn down a path, warm-started."""
    solver, dtype = solver.split()
    x = x.astype(dtype)

    def fit() -> list[np.ndarray]:
        model, out = LogisticRegression(solver=solver, tol=logistic.TOLERANCE, max_iter=10_000, warm_start=True), []
        for l2 in path:
            model.set_params(C=1 / (l2 * len(x))).fit(x, y)
            out.append(np.concatenate([model.coef_, model.intercept_[:, None]], axis=1))
        return out

    return fit


def fastest(x: np.ndarray, y: np.ndarray, path: tuple[float, ...]) -> dict[str, float]:
    """Seconds of one run by solver and precision; infinite for one that was stopped."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    once: dict[str, float] = {}
    small = int(y.max() + 1) * (x.shape[1] + 1) <= NEWTON_LIMIT
    for solver in SOLVERS[: len(SOLVERS) if small else -1]:
        started = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, 2 * min(once.values(), default=0))  # 0: no limit
        try:
            rival(x, y, path, solver)()
            once[solver] = time.perf_counter() - started
        except TimeoutError:
            once[solver] = float("inf")
        signal.setitimer(signal.ITIMER_REAL, 0)
    return once


def compare(
    x: np.ndarray, y: np.ndarray, name: str, path: tuple[float, ...], args: argparse.Namespace, solver: str | None = None
) -> dict[str, Any]:
    """One problem: who takes how long and where each ends."""
    classes = int(y.max()) + 1
    jobs = {"ncjax": ours(x, y, classes, path)}
    jax.clear_caches()
    started = time.perf_counter()
    jobs["ncjax"]()
    first = time.perf_counter() - started
    once = fastest(x, y, path) if solver is None else {}
    best = solver or min(once, key=once.get)
    jobs[best] = rival(x, y, path, best)
    seconds, others = common.in_turns(jobs, args.repeats)
    ends = {
        label: [judged(params, x, y, l2) for params, l2 in zip(job(), path, strict=True)] for label, job in jobs.items()
    }
    median = common.medians(seconds)
    return {
        "problem": name,
        "count": len(x),
        "dim": x.shape[1],
        "classes": classes,
        "l2": path,
        "rival": best,
        "ratio": median[best] / median["ncjax"],
        "median": median,
        "seconds": seconds,
        "others": others,
        "compile_seconds": first - median["ncjax"],
        "rivals_once": once,
        "objective": {k: [e[0] for e in v] for k, v in ends.items()},
        "gradient": {k: [e[1] for e in v] for k, v in ends.items()},
    }


def show(row: dict[str, Any]) -> None:
    """Prints a line."""
    path = "path" if len(row["l2"]) > 1 else f"{row['l2'][0]:g}"
    mine, theirs = (max(row["gradient"][k]) for k in ("ncjax", row["rival"]))
    apart = max(a - b for a, b in zip(row["objective"]["ncjax"], row["objective"][row["rival"]], strict=True))
    print(
        f"{row['problem']:<12}{row['dim']:>6}{row['classes']:>5}  {path:<7}{row['median']['ncjax']:>8.2f}"
        f"{row['median'][row['rival']]:>9.2f}{row['ratio']:>7.1f}  {row['rival']:<24}{row['compile_seconds']:>7.1f}"
        f"{mine:>9.0e}{theirs:>9.0e}{apart:>10.0e}" + ("  (disturbed)" if row["others"] > 0.1 else ""),
        flush=True,
    )


def main() -> None:
    """Prints a line a problem; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--apart", type=float, default=5)
    parser.add_argument("--l2", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--data", help="a data set in place of synthetic features; --init says whose features of it")
    parser.add_argument("--init")
    parser.add_argument("--model")
    parser.add_argument("--out")
    args = parser.parse_args()
    warnings.filterwarnings("error", category=sklearn.exceptions.ConvergenceWarning)
    problems = (
        [("network", *of_network(args))]
        if args.data
        else [(f"{args.apart:g} apart", *synthetic(args.count, args.dim, k, args.apart)) for k in args.classes]
    )
    print(
        f"{'':<12}{'D':>6}{'K':>5}  {'l2':<7}{'ncjax s':>8}{'rival s':>9}{'ratio':>7}  {'rival at its best':<24}"
        f"{'compile':>7}{'gradient':>9}{'rival':>9}{'obj apart':>10}"
    )
    rows = []
    for name, x, y in problems:
        x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
        for path in [*((l2,) for l2 in args.l2), probe.L2_GRID]:
            rows.append(compare(x, y, name, path, args, rows[-1]["rival"] if len(path) > 1 else None))
            show(rows[-1])
    if args.out:
        common.write(args.out, rows=rows, data=args.data, init=args.init, model=args.model)


if __name__ == "__main__":
    main()
