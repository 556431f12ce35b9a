"""What do huge pages gain (`ncjax/core/memory.py`)?

    python bench/memory.py [--networks resnet20 vit] [--batch 128] [--repeats 3] [--out FILE.json]

Needs torch, as bench/train.py does. Training steps in small pages, as the system's malloc has them, and in huge ones, in
processes of their own, in turns: seconds, page faults, seconds in the kernel, and the process's peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

STEPS = 5
PAGES = {"small": {"NCJAX_MALLOC": "system", "GLIBC_TUNABLES": ""}, "huge": {"NCJAX_MALLOC": ""}}


def child(network: str, batch: int, xla: bool) -> None:
    """Prints what a step takes, after two that do not count."""
    import train

    name, size = train.NETWORKS[network][0], {"side": train.SIDE, "classes": train.CLASSES}
    job = train.ours(name, batch, 1, "float32", **size, xla=xla).job
    job(), job()
    before, seconds = resource.getrusage(resource.RUSAGE_SELF), []
    for _ in range(STEPS):
        started = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - started)
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "seconds": statistics.median(seconds),
                "faults": (after.ru_minflt - before.ru_minflt) / STEPS,
                "kernel": (after.ru_stime - before.ru_stime) / STEPS,
                "peak_mb": after.ru_maxrss / 1024,
            }
        )
    )


def main() -> None:
    """Prints a table; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["resnet20", "vit"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out")
    parser.add_argument("--child", choices=("xla", "onednn"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.networks[0], args.batch, args.child == "xla")
    else:
        compare(args)


def compare(args: argparse.Namespace) -> None:
    """Both, in turns."""
    import common

    from ncjax import conv
    from ncjax.core import memory

    if memory.pages() != "huge":
        raise SystemExit(f"no huge pages here: {memory.why_not()}")
    kinds = ["xla"] + ["onednn"] * (conv.implementation() == "onednn")
    rows = []
    for network in args.networks:
        for kind in kinds:
            runs: dict[str, list[dict[str, float]]] = {pages: [] for pages in PAGES}
            for _ in range(args.repeats):
                for pages, many in runs.items():
                    words = [sys.executable, __file__, "--networks", network, "--batch", str(args.batch), "--child", kind]
                    done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | PAGES[pages])
                    many.append(json.loads(done.stdout.splitlines()[-1]))
            middle = {p: {k: statistics.median(r[k] for r in many) for k in many[0]} for p, many in runs.items()}
            for pages, m in middle.items():
                print(
                    f"{network:<14}{kind:<8}{pages:<8}{1e3 * m['seconds']:>8.0f} ms{m['faults']:>9.0f} faults"
                    f"{1e3 * m['kernel']:>7.0f} ms in the kernel  peak {m['peak_mb']:,.0f} MB"
                )
            ratio = middle["small"]["seconds"] / middle["huge"]["seconds"]
            print(f"{network:<14}{kind:<8}{ratio:.2f} times as fast", flush=True)
            rows.append({"network": network, "convolutions": kind, "batch": args.batch, "runs": runs, "ratio": ratio})
    if args.out:
        common.write(args.out, rows=rows)


if __name__ == "__main__":
    main()
