"""The quick start over several seeds: means with 95 % t intervals of what it says of one.

    python bench/quickstart.py [--seeds 5] [--folder runs/quickstart_seeds] [--out FILE.json]

Every seed is a whole run of configs/quickstart.py: its own initialisation, order of batches and classifier, and for the
tuned methods its own 20 images a class of the target; what is held out of source and target is one for all. A stopped
run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import common

from ncjax import main
from ncjax.evidence import intervals

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.py"
METHODS = ("probe", "layer_ft", "layer_ft_scaled", "scl_ft", "full_ft")


def run(folder: Path, seed: int) -> dict[str, float]:
    """What one run came to."""
    workdir = folder / f"seed{seed}"
    steps = ["pretrain", "pretrain_head", *METHODS]
    overrides = [f"--config.steps.{step}.seed={seed}" for step in steps]
    overrides += [f"--config.steps.{step}.split_seed={seed}" for step in METHODS]
    code = main.main([f"--config={CONFIG}", f"--workdir={workdir}", *overrides])
    if code:
        raise SystemExit(code)

    def results(step: str) -> dict[str, Any]:
        return json.loads((workdir / step / "results.json").read_text())["results"]

    out = {}
    for name, head in (("without head", ""), ("with head", "_head")):
        trained, target = results(f"pretrain{head}"), results(f"target{head}")
        last = trained["penultimate"]
        out[f"source test accuracy, {name}"] = trained["final"]["test"]["output"]["accuracy"]
        out[f"source train NC1, {name}"] = trained["final"]["train"][last]["nc1"]
        out[f"target probe, {name}"] = target["layers"][last]["probe"]["test"]
    for method in METHODS:
        tuned = results(method)
        out[f"{method}: test accuracy"] = tuned["accuracy"]["test"]
        out[f"{method}: NC1 readout, test"] = tuned["nc1_readout"]["test"]
    return out


def report() -> None:
    """Runs every seed, prints a row a number; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/quickstart_seeds"))
    parser.add_argument("--out")
    args = parser.parse_args()
    found = [run(args.folder, seed) for seed in range(args.seeds)]
    summary = {name: (intervals.mean if "NC1" in name else intervals.share)([f[name] for f in found]) for name in found[0]}
    paired = {
        f"scl_ft - {other}: test accuracy": intervals.paired(
            [f["scl_ft: test accuracy"] for f in found], [f[f"{other}: test accuracy"] for f in found]
        )
        for other in METHODS
        if other != "scl_ft"
    } | {
        "log NC1 readout, test: scl_ft - layer_ft": intervals.paired(
            *([math.log(f[f"{m}: NC1 readout, test"]) for f in found] for m in ("scl_ft", "layer_ft"))
        )
    }
    for name, interval in (summary | paired).items():
        shown = intervals.percent(interval) if "NC1" not in name else intervals.digits(interval)
        print(f"{name:<40} {shown}")
    if args.out:
        common.write(args.out, seeds=args.seeds, summary=summary, paired=paired, runs=found)


if __name__ == "__main__":
    report()
