"""Do XLA's and oneDNN's convolutions end a whole run alike, and how long does it take with each?

    python bench/agree.py [--seeds 5] [--out FILE.json]

`configs/pretrain.py` from beginning to end (15 epochs of a ResNet-14, every layer measured on train and test after each) in
processes of its own, in turns: with oneDNN's convolutions, with XLA's, and with XLA's in small pages of memory. Prints
what the last epoch measured, its paired difference with 95 % t intervals over seeds beside the spread over seeds, and
seconds of the run, compiling included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import common
import numpy as np

from ncjax import conv
from ncjax.core.files import read_json
from ncjax.evidence import intervals

SETTINGS = {
    "onednn": {"NCJAX_CONV": "onednn"},
    "xla": {"NCJAX_CONV": "xla"},
    "xla, small pages": {"NCJAX_CONV": "xla", "NCJAX_MALLOC": "system", "GLIBC_TUNABLES": ""},
}
METRICS = (("test", "accuracy"), ("train", "nc1"), ("test", "nc1"), ("train", "cdnv"))


def run(seed: int, setting: str, folder: Path) -> dict[str, float]:
    """Seconds, and the metrics of the last epoch."""
    workdir = folder / f"{setting.replace(', ', '_').replace(' ', '_')}_{seed}"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "ncjax.main",
            "--config=configs/pretrain.py",
            f"--config.seed={seed}",
            f"--workdir={workdir}",
        ],
        env=os.environ | SETTINGS[setting],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    record = read_json(workdir / "results.json")
    found, last = record["results"]["final"], record["results"]["penultimate"]
    return {"seconds": record["seconds"], **{f"{split} {metric}": found[split][last][metric] for split, metric in METRICS}}


def main() -> None:
    """Prints two tables; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out")
    args = parser.parse_args()
    print(conv.header())
    settings = [s for s in SETTINGS if s != "onednn" or conv.implementation() == "onednn"]
    found: dict[str, list[dict[str, float]]] = {s: [] for s in settings}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            for s in settings[seed % len(settings) :] + settings[: seed % len(settings)]:
                found[s].append(run(seed, s, Path(folder)))
                print(f"seed {seed}, {s}: " + ", ".join(f"{k} {v:.4g}" for k, v in found[s][-1].items()), flush=True)
    print(f"\n{'':<22}{'s, median':>10}{'x':>7}")
    seconds = {s: float(np.median([x["seconds"] for x in found[s]])) for s in settings}
    for s in settings:
        print(f"{s:<22}{seconds[s]:>10.1f}{max(seconds.values()) / seconds[s]:>7.2f}")
    differences = {}
    if "onednn" in settings:
        print(f"\n{'':<16}{'onednn':>10}{'xla':>10}{'sd of seeds':>13}   onednn - xla")
        for name in [f"{split} {metric}" for split, metric in METRICS]:
            ours, theirs = ([x[name] for x in found[s]] for s in ("onednn", "xla"))
            gap = differences[name] = intervals.paired(ours, theirs)
            print(
                f"{name:<16}{np.mean(ours):>10.4g}{np.mean(theirs):>10.4g}{np.std(theirs, ddof=1):>13.2g}   "
                f"{gap.mean:+.2g} [{gap.low:+.2g}, {gap.high:+.2g}]"
            )
    if args.out:
        common.write(args.out, runs=found, seconds=seconds, differences={k: v._asdict() for k, v in differences.items()})


if __name__ == "__main__":
    main()
