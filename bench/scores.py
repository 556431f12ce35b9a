"""Transferability scores beside their authors' code and tllib's: the same numbers? How much faster?

    python bench/scores.py --tllib DIR --ncti DIR [--classes 10 100] [--images 50000] [--width 2048] [--out FILE.json]

DIRs are checkouts of thuml/Transfer-Learning-Library (needs numba) and BUserName/NCTI (needs torch), which has the code of
SFDA and of PARC too. Random features with class signal and a power-law spectrum, float32, and random source logits of 1000
classes; everybody gets the same arrays, once, in this order: ours, theirs. Ours share what one pass over the features gives
(its seconds are the row "moments"), so the sum is what counts. Differences that the transcriptions in tests/scores explain:
tllib's LogME stops after 11 steps at 1 %; NCTI's LogME adds 1e-5; SFDA there takes the largest eigenvalue from three steps
of the power method; and theirs change the features in place.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
from scipy.special import softmax

from ncjax.core.memory import measured_peak
from ncjax.scores import score


def module(path: Path) -> types.ModuleType:
    """A file of a checkout; what it prints goes nowhere."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            spec.loader.exec_module(found)
    finally:
        sys.path.pop(0)
    return found


def features_of(images: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """[N, D] with a spectrum d^-1, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(images) % classes)
    scale = np.arange(1, width + 1, dtype=np.float32) ** -0.5
    means = rng.normal(size=(classes, width)).astype(np.float32)
    x = rng.standard_normal((images, width), dtype=np.float32)
    x += 0.5 * means[labels]
    return x * scale, labels


def rivals(tllib: Path, ncti: Path) -> dict[str, Callable[..., Any]]:
    """{score: theirs, of (features, labels, logits)}."""
    at = tllib / "tllib" / "ranking"
    hscore, leep, nce, logme, transrate = (module(at / f"{m}.py") for m in ("hscore", "leep", "nce", "logme", "transrate"))
    theirs = module(ncti / "metrics.py")
    theirs.sklearn = __import__("sklearn.decomposition", fromlist=["x"]) and __import__("sklearn")  # it forgets to import
    theirs.scipy = __import__("scipy.stats", fromlist=["x"]) and __import__("scipy")
    __import__("sklearn.preprocessing")
    lda = __import__("sklearn.discriminant_analysis", fromlist=["x"]).LinearDiscriminantAnalysis
    theirs.LinearDiscriminantAnalysis = lda
    return {
        "h_score": lambda x, y, z: hscore.h_score(x, y),
        "h_score_regularised": lambda x, y, z: hscore.regularized_h_score(x, y),
        "logme": lambda x, y, z: logme.log_maximum_evidence(x, y),
        "transrate": lambda x, y, z: transrate.transrate(x, y),
        "leep": lambda x, y, z: leep.log_expected_empirical_prediction(softmax(z, axis=1), y),
        "nce": lambda x, y, z: nce.negative_conditional_entropy(z.argmax(1), y),
        "sfda": lambda x, y, z: theirs.SFDA_Score(x.astype(np.float64), y),
        "ncti_features": lambda x, y, z: theirs.NCTI_Score(x.astype(np.float64), y),
    }


def main() -> None:
    """Prints a table for every number of classes; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tllib", type=Path, required=True)
    parser.add_argument("--ncti", type=Path, required=True)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--out")
    args = parser.parse_args()
    theirs, found = rivals(args.tllib, args.ncti), {}
    module(args.tllib / "tllib" / "ranking" / "logme.py").log_maximum_evidence(  # numba compiles before the clock runs
        np.random.default_rng(0).normal(size=(40, 8)), np.arange(40) % 2
    )
    for classes in args.classes:
        x, y = features_of(args.images, args.width, classes)
        logits = 2 * np.random.default_rng(1).standard_normal((args.images, 1000), dtype=np.float32)
        wanted = score.all_named([f"scores.{name}" for name in theirs])
        seconds: dict[str, float] = {}
        with measured_peak() as ours_peak:
            inputs = {"features": x, "labels": y, "num_classes": classes, "source_logits": logits}
            values, _ = score.applied(wanted, inputs, seconds)
        rows, total = {"moments": {"ours_s": seconds["moments"]}}, {"ours": seconds["moments"], "theirs": 0.0}
        for name, rival in theirs.items():
            with measured_peak() as peak, contextlib.redirect_stdout(io.StringIO()):
                started = time.perf_counter()
                value = rival(x, y, logits)
                took = time.perf_counter() - started
            value = float(value[0] if isinstance(value, tuple) else value)
            mine = values[name]
            times = {"ours_s": seconds[name], "theirs_s": took, "theirs_mb": (peak.rise or 0) / 2**20}
            rows[name] = {"ours": mine, "theirs": value, **times}
            total["ours"] += seconds[name]
            total["theirs"] += took
            print(
                f"K {classes:<5} {name:<22} ours {mine:<12.7g} theirs {value:<12.7g} {seconds[name]:7.2f} s {took:8.2f} s  "
                f"x {took / max(seconds[name], 1e-9):.1f}",
                flush=True,
            )
        print(
            f"K {classes:<5} all, with moments {seconds['moments']:.2f} s: {total['ours']:.1f} s against "
            f"{total['theirs']:.1f} s, "
            f"x {total['theirs'] / total['ours']:.1f}; ours rise by {(ours_peak.rise or 0) / 2**20:.0f} MB",
            flush=True,
        )
        found[str(classes)] = {"scores": rows, "total": total, "ours_mb": (ours_peak.rise or 0) / 2**20}
    if args.out:
        common.write(args.out, images=args.images, width=args.width, found=found)


if __name__ == "__main__":
    main()
