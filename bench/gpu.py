"""Every figure that a GPU has to give, in one command: parts that can be named, a JSON each, under 12 minutes in all.

    python bench/gpu.py OUT [--parts metrics ...] [--rival PATH] [--data npz:cifar100.npz] [--tiny] [--seconds 170]

Nothing is fetched. PATH is a checkout of github.com/rhubarbwu/neural-collapse; without it, and without torch, the rivals
are left out. Parts run one after another, in the order given: each must have the device to itself. Within a part every
contender is a process of its own: they compile side by side and are timed one at a time, behind a lock. Rows are written as
they are found, so that a part stopped after --seconds keeps what it has. --tiny is a rehearsal, which a CPU does as well.

right      the part of the suite that concerns devices: metrics in float64, frozen bits, resuming
metrics    NC1 and all metrics of N = 50 000 features beside the library on the same GPU, as a share of copy bandwidth
compile    the first and later `nc.measure` of a process, with and without Triton's matrix products
layers     statistics of every block of a ResNet-50 while images stream through it, beside the forward pass alone
train_cnn  ResNet-18 (CIFAR stem, batch 512) and ResNet-50 (224 px, 256): images/s, share of the bfloat16 peak, beside
           torch.compile with channels last and bfloat16 autocast
train_vit  ViT-S/16 (256) and ViT-B/16 (128) likewise
flops      of a training step of the four, before optimisation; runs anywhere
tuning     full FT, the last stage and SCL FT of a ResNet-18, prefix kept and not, beside the same in torch
seeds      five ResNet-20 in one program beside one
probe      N = 500 000, D = 2048, K = 1000, one strength
study      ResNet-18 on --data, 100 epochs, collapse of train and test after each
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TORCH = importlib.util.find_spec("torch") is not None
Row = dict[str, Any]
Rows = Iterable[Row]

# name: (model, side, batch, classes, steps of a timing)
NETWORKS = {
    "resnet18": ("models.resnet.resnet18", 32, 512, 100, 40),
    "resnet50": ("models.resnet.resnet50(stem=imagenet)", 224, 256, 1000, 8),
    "vit_s": ("models.vit.vit_s", 224, 256, 1000, 8),
    "vit_b": ("models.vit.vit_b", 224, 128, 1000, 8),
    "tiny": ("models.resnet.resnet8(width=4)", 8, 4, 3, 1),
}
TUNING = (
    "ncjax full bf16",
    "torch full bf16 compiled",
    "ncjax last stage bf16",
    "ncjax last stage kept bf16",
    "torch last stage bf16 compiled",
    "ncjax scl bf16",
    "ncjax scl kept bf16",
    "torch scl bf16 compiled",
)
RIGHT = [
    "tests/nc/test_measure.py",
    "tests/training/test_loop.py",
    "tests/tuning/test_methods.py",
    "tests/features/test_passes.py",
    "tests/test_losses.py",
]


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """The device to this process: others wait."""
    with open(out / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def timed(out: Path, job: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each run of a warm job while the device is this process's alone."""
    seconds = []
    with alone(out):
        job()
        for _ in range(repeats):
            started = time.perf_counter()
            job()
            seconds.append(time.perf_counter() - started)
    return seconds


def several(job: Callable[[], Any], times: int) -> None:
    """A job of a device so many times, begun without waiting for the one before."""
    import jax

    for _ in range(times):
        found = job()
    jax.block_until_ready(found)


def ceilings(args: argparse.Namespace) -> Rows:
    """Copy bandwidth in bytes/s, read and written, and bfloat16 matrix products in FLOP/s, both by XLA on random data."""
    import jax
    import jax.numpy as jnp

    side, count, times = (64, 1 << 12, 2) if args.tiny else (8192, 1 << 29, 20)
    x = jax.random.normal(jax.random.key(0), (count,), jnp.float32)
    a = jax.random.normal(jax.random.key(1), (side, side), jnp.bfloat16)
    copy, product = jax.jit(lambda x: -x), jax.jit(lambda a: a @ a)

    moved = min(timed(args.out, lambda: several(lambda: copy(x), times), 3)) / times
    multiplied = min(timed(args.out, lambda: several(lambda: product(a), times), 3)) / times
    yield {
        "device": jax.devices()[0].device_kind,
        "copy_bytes_per_second": 8 * count / moved,
        "bf16_flops_per_second": 2 * side**3 / multiplied,
    }


def metrics(args: argparse.Namespace, library: str) -> Rows:
    """One library on every size: seconds of NC1 and of all metrics, and their values."""
    import nc as compared  # needs torch
    import numpy as np

    count, sizes = (300, [(16, 5)]) if args.tiny else (50_000, [(d, k) for k in (100, 10, 1000) for d in (512, 2048)])
    for dim, classes in sizes:
        h, y, weight = compared.make(count, dim, classes)
        jobs: dict[str, Callable[[], Any]] = {}
        times = 1 if args.tiny else 20
        if library == "ncjax":
            jobs = ours_metrics(h, y, weight)
        elif library == "rival":
            jobs = rival_metrics(np.array(h), y, weight)
        for name, job in jobs.items():
            found = job()
            reads = name.startswith("two reads")  # begun one after another, as the copies are that they are held against
            seconds = timed(args.out, functools.partial(several, job, times) if reads else job, 1 if args.tiny else 5)
            seconds = [s / times for s in seconds] if reads else seconds
            found = found if isinstance(found, dict) else None
            yield {
                "library": library,
                "dim": dim,
                "classes": classes,
                "count": count,
                "job": name,
                "values": found,
                "seconds": seconds,
                "bytes_read": 2 * 4 * count * dim,
            }
        if library == "float64":
            with alone(args.out):  # its threads would take the cores from those who are timed
                values = compared.numpy_job(np.asarray(h), y, weight, True)
            yield {"library": library, "dim": dim, "classes": classes, "count": count, "values": values}


def ours_metrics(h: Any, y: Any, weight: Any) -> dict[str, Callable[[], Any]]:
    """NC1 alone, everything, and what of it is two reads of the features."""
    import jax
    import jax.numpy as jnp
    import nc as compared

    from ncjax import nc

    labels = jnp.asarray(y)
    start = nc.empty(len(weight), h.shape[1], scatter=False)
    stats = jax.block_until_ready(jax.jit(nc.observe)(start, h, labels))
    frame = jax.block_until_ready(jax.jit(nc.frame)(stats))

    @functools.partial(jax.jit, static_argnums=4)
    def looks(start: Any, frame: Any, h: Any, labels: Any, decisions: bool) -> Any:
        return nc.observe(start, h, labels), nc.look(nc.unseen(frame), frame, h, labels, decisions=decisions)

    return {
        "two reads, nc1": lambda: looks(start, frame, h, labels, False),
        "two reads, all": lambda: looks(start, frame, h, labels, True),
        "nc1": lambda: compared.ncjax_job(h, y, weight, False),
        "all": lambda: compared.ncjax_job(h, y, weight, True),
    }


def compiling(args: argparse.Namespace, triton: bool) -> Rows:
    """What a process pays for its first measurement, with XLA's own choice of matrix products and with ncjax's."""
    import nc as compared

    from ncjax import nc
    from ncjax.core import programs

    if triton:
        programs.OPTIONS.clear()
    count, dim, classes = (300, 16, 5) if args.tiny else (50_000, 2048, 100)
    h, y, weight = compared.make(count, dim, classes)
    seconds = []
    for _ in range(3):
        with alone(args.out):
            started = time.perf_counter()
            nc.measure(h, y, classifier=(weight, None), floors=False)
            seconds.append(time.perf_counter() - started)
    yield {"triton": triton, "count": count, "dim": dim, "classes": classes, "seconds": seconds, "first": seconds[0]}


def rival_metrics(h: Any, y: Any, weight: Any) -> dict[str, Callable[[], Any]]:
    """The library at three batch sizes; its best is quoted."""
    import nc as compared
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    th, ty, tw = (torch.from_numpy(x).to(device) for x in (h, y, weight))

    def job(everything: bool, batch: int) -> Any:
        found = compared.rival_job(th, ty, tw, everything, batch)
        if device == "cuda":
            torch.cuda.synchronize()
        return found

    return {
        f"{name}, batch {batch}": functools.partial(job, name == "all", batch)
        for name in ("nc1", "all")
        for batch in (5000, len(h))
    }


def training(args: argparse.Namespace, network: str, library: str) -> Rows:
    """Images per second of one network in one library."""
    import steps

    name, side, batch, classes, count = NETWORKS[network]
    if library == "ncjax":
        with alone(args.out):  # XLA times kernels while it compiles
            made = steps.ours(name, batch, count, "bfloat16", side=side, classes=classes)
    else:
        import torch_models
        import train

        nets = {
            "resnet18": lambda: torch_models.resnet((2, 2, 2, 2), False, classes, None),
            "resnet50": lambda: torch_models.Pooled(torch_models.imagenet_resnet((3, 4, 6, 3), True), 2048, classes),
            "vit_s": lambda: torch_models.vit(384, 6, 12, 16, 224, classes, None),
            "vit_b": lambda: torch_models.vit(768, 12, 12, 16, 224, classes, None),
        }
        made = train.rival(nets[network], batch, count, bf16=True, compiled=True, side=side, classes=classes)
        started = time.perf_counter()
        made.job()
        made = made._replace(compile_seconds=time.perf_counter() - started)
    seconds = timed(args.out, made.job, 1 if args.tiny else 5)
    yield {
        "network": network,
        "library": library,
        "batch": batch,
        "side": side,
        "steps": count,
        "seconds": seconds,
        "parameters": made.parameters,
        "compile_seconds": made.compile_seconds,
        "images_per_second": batch * count / statistics.median(seconds),
    }


def flops(names: list[str]) -> Rows:
    """FLOPs of a step of each network, from which follows the share of the peak. Needs no device."""
    import steps

    for network in names:
        name, side, batch, classes, _ = NETWORKS[network]
        yield {"network": network, "batch": batch, "flops_per_step": steps.flops(name, batch, side=side, classes=classes)}


def tuning(args: argparse.Namespace, contender: str) -> Rows:
    """An epoch of one way to fine-tune a ResNet-18."""
    import finetune  # needs torch

    batch, images = (4, 8) if args.tiny else (256, 8192)
    with alone(args.out) if contender.startswith("ncjax") else contextlib.nullcontext():
        epoch, facts = finetune.contender("resnet18", contender, batch, images)
        epoch()
    seconds = timed(args.out, epoch, 1 if args.tiny else 5)
    yield {
        "contender": contender,
        "batch": batch,
        "images": images,
        "seconds": seconds,
        **facts,
        "images_per_second": images / statistics.median(seconds),
    }


def probing(args: argparse.Namespace) -> Rows:
    """One probe to the solver's own tolerance."""
    import jax
    import jax.numpy as jnp

    from ncjax.transfer import logistic

    count, dim, classes = (200, 8, 4) if args.tiny else (500_000, 2048, 1000)

    @jax.jit
    def draw(key: Any) -> tuple[Any, Any]:
        labels = jax.random.randint(key, (count,), 0, classes)
        means = jax.random.normal(jax.random.fold_in(key, 1), (classes, dim)) * 5 / jnp.sqrt(2 * dim)
        return means[labels] + jax.random.normal(jax.random.fold_in(key, 2), (count, dim)), labels

    x, y = jax.block_until_ready(draw(jax.random.key(0)))
    for _ in range(2):  # the first compiles
        with alone(args.out):
            started = time.perf_counter()
            (found,) = jax.block_until_ready(logistic.solve(x, y, classes, (1e-3,)))
            seconds = time.perf_counter() - started
        yield {
            "count": count,
            "dim": dim,
            "classes": classes,
            "seconds": [seconds],
            "steps": int(found.steps),
            "gradient": float(found.gradient),
            "peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        }


def command(words: list[str]) -> Rows:
    """A command of the project, which prints into the job's log, and how long it took."""
    started = time.perf_counter()
    code = subprocess.run([sys.executable, *words], cwd=HERE.parent, check=False).returncode
    yield {"command": words, "code": code, "wall_seconds": time.perf_counter() - started}


def jobs(args: argparse.Namespace) -> dict[str, dict[str, Callable[[], Rows]]]:
    """{part: {job: what it finds}}; jobs of a part run side by side, each in a process of its own."""
    cnn, vit = (["tiny"], []) if args.tiny else (["resnet18", "resnet50"], ["vit_s", "vit_b"])
    libraries = ["ncjax"] + (["torch"] if TORCH and not args.tiny else [])
    workdir = str(args.out / "study")
    small = (
        "smoke,"
        if args.tiny
        else (
            "model=models.resnet.resnet18(dtype=bfloat16),augment=augment.crop_flip,epochs=100,"
            "batch_size=512,lr=0.1,measure_every=1,val_fraction=0.0,"
        )
    )
    size = (
        ["--images", "8", "--size", "32", "--batch", "4", "--classes", "3", "--repeats", "1"]
        if args.tiny
        else ["--images", "1024", "--size", "224", "--batch", "256", "--repeats", "3"]
    )
    depth = "18" if args.tiny else "50"
    found: dict[str, dict[str, Callable[[], Rows]]] = {
        "ceilings": {"ceilings": lambda: ceilings(args)},
        "metrics": {
            library: functools.partial(metrics, args, library)
            for library in (["ncjax", "float64"] + (["rival"] if args.rival else []) if TORCH else [])
        },
        "compile": {
            name: functools.partial(compiling, args, name == "triton") for name in (("triton", "cublas") if TORCH else ())
        },
        "train_cnn": {f"{n} {x}": functools.partial(training, args, n, x) for n in cnn for x in libraries},
        "train_vit": {f"{n} {x}": functools.partial(training, args, n, x) for n in vit for x in libraries},
        "flops": {"flops": lambda: flops([*cnn, *vit])},
        "tuning": {name: functools.partial(tuning, args, name) for name in (TUNING if TORCH else ())},
        "layers": {
            "layers": lambda: command(
                [
                    "bench/layers.py",
                    "--model",
                    f"models.resnet.resnet{depth}(stem=imagenet,dtype=bfloat16)",
                    *size,
                    "--out",
                    str(args.out / "bench_layers.json"),
                ]
            )
        },
        "seeds": {
            "seeds": lambda: command(
                [
                    "bench/seeds.py",
                    "--cases",
                    "mlp" if args.tiny else "resnet20",
                    "--seeds",
                    "1",
                    "5",
                    "--steps",
                    "1" if args.tiny else "50",
                    "--out",
                    str(args.out / "bench_seeds.json"),
                ]
            )
        },
        "probe": {"probe": lambda: probing(args)},
        "study": {
            "study": lambda: command(
                ["-m", "ncjax.main", "--workdir", workdir, f"--config=configs/pretrain.py:{small}data={args.data}"]
            )
        },
        "right": {
            "right": lambda: command(
                [
                    "-m",
                    "pytest",
                    "-n",
                    "4" if args.tiny else "12",
                    "--dist",
                    "load",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "-p",
                    "no:benchmark",
                    *RIGHT[: 1 if args.tiny else None],
                ]
            )
        },
    }
    return {part: each for part, each in found.items() if each}


def run_part(args: argparse.Namespace, part: str, names: list[str]) -> dict[str, Any]:
    """Starts a process a job, waits, and gathers the rows; a job that fails is a row that says so."""
    started = time.time()
    env = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, str(HERE / "gpu.py"), *sys.argv[1:]]
    running = []
    for name in names:
        log = open(args.out / f"{part}.{name.replace(' ', '_')}.log", "w")  # noqa: SIM115 - closed with its process
        running.append(
            (
                name,
                log,
                subprocess.Popen([*words, "--job", part, name], env=env, stdout=log, stderr=log, start_new_session=True),
            )
        )
    rows: list[Row] = []
    for name, log, process in running:
        try:
            code = process.wait(max(args.seconds - (time.time() - started), 1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            code = f"stopped after {args.seconds:.0f} s"
        log.close()
        path = rows_of(args, part, name)
        rows += [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        if code or (rows and rows[-1].get("code")):
            rows.append({"job": name, "failed": code, "log": Path(log.name).read_text()[-1500:]})
    return {"part": part, "part_seconds": time.time() - started, "tiny": args.tiny, "rows": rows}


def versions() -> dict[str, str]:
    """Of what decides the figures."""
    out = {}
    for name in ("ncjax", "jax", "jaxlib", "flax", "optax", "torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            out[name] = metadata.version(name)
    return out


def rows_of(args: argparse.Namespace, part: str, job: str) -> Path:
    """Where a job writes its rows, a line each."""
    return args.out / f"{part}.{job.replace(' ', '_')}.jsonl"


def tell(found: dict[str, Any]) -> None:
    """A line a row."""
    print(f"\n{found['part']}: {found['part_seconds']:.0f} s")
    for row in found["rows"]:
        if "failed" in row:
            print(f"  {row['job']}: failed ({row['failed']}): {' | '.join(row['log'].splitlines()[-4:])}")
        else:
            middle = {"median_seconds": statistics.median(row["seconds"])} if row.get("seconds") else {}
            shown = {k: v for k, v in {**row, **middle}.items() if isinstance(v, str | int | float)}
            print("  " + "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()))
    sys.stdout.flush()


def main() -> int:
    """Exit code 0 where every job of every part ended well, 1 where some did not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+")
    parser.add_argument("--rival", help="a checkout of rhubarbwu/neural-collapse")
    parser.add_argument("--data", default="embedded.fashion_mnist_mini")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=170)
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [str(HERE.parent), *([args.rival] if args.rival else [])]
    parts = jobs(args)
    unknown = [part for part in args.parts or [] if part not in parts]
    if unknown:
        parser.error(f"no part {unknown[0]!r} here; parts: {', '.join(parts)}" + ("" if TORCH else " (torch is missing)"))
    if args.job:
        part, name = args.job
        with open(rows_of(args, part, name), "w") as file:
            for row in parts[part][name]():
                print(json.dumps(row), file=file, flush=True)
        return 0
    ended_well = True
    for part in args.parts or parts:
        found = run_part(args, part, list(parts[part]))
        ended_well &= not any("failed" in row for row in found["rows"])
        record = {"command": ["bench/gpu.py", *sys.argv[1:]], "versions": versions(), **found}
        (args.out / f"{part}.json").write_text(json.dumps(record, indent=1))
        tell(found)
    return 0 if ended_well else 1


if __name__ == "__main__":
    sys.exit(main())
