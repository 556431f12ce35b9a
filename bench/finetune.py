"""What does tuning part of a network cost? ncjax with and without a kept prefix, against full fine-tuning and PyTorch.

    python bench/finetune.py [--networks resnet18 resnet50 vit_ti] [--images 512] [--repeats 3] [--out FILE.json]

Needs torch. The same random images, batch, optimiser (SGD with momentum and weight decay), frozen BatchNorm statistics and
number of trained parameters (checked) for everyone, in turns, on one machine. PyTorch's networks are in
bench/torch_models.py; its frozen prefix runs under no_grad, in channels_last, in float32 and under bfloat16 autocast, on
a GPU compiled too, TF32 allowed as it is to XLA. "x torch" is PyTorch's same method in float32 over the row; "x best" its
fastest way over the row. "limit" is how many times as fast as full fine-tuning a row can be by its FLOPs, as ncjax's step
needs them; "share" what of that it reaches. "kept" is ncjax with the prefix's activations kept; making them is timed
apart. Memory is the rise of the host's peak over a warm epoch in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import common
import jax
import numpy as np
import torch
import torch_models

from ncjax import data, optim
from ncjax.core import mesh, trees
from ncjax.core.roles import MODEL, resolve
from ncjax.core.types import Network
from ncjax.losses import cross_entropy
from ncjax.networks.card import Card
from ncjax.training import cost, loop
from ncjax.transfer import prefix
from ncjax.tuning.plans import Target, plan_of

SIDE, CLASSES = 32, 10
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {
        "jax": "models.resnet.resnet18()",
        "torch": lambda skip: torch_models.resnet((2, 2, 2, 2), False, CLASSES, skip),
        "last stage": ("layer_ft", "layer4.*"),
        "scl": ("scl_ft", "layer3.0"),
    },
    "resnet50": {
        "jax": "models.resnet.resnet50()",
        "torch": lambda skip: torch_models.resnet((3, 4, 6, 3), True, CLASSES, skip),
        "last stage": ("layer_ft", "layer4.*"),
        "scl": ("scl_ft", "layer3.0"),
    },
    "vit_ti": {
        "jax": "models.vit.vit_ti(patch=4)",
        "torch": lambda skip: torch_models.vit(192, 3, 12, 4, SIDE, CLASSES, skip),
        "last stage": ("layer_ft", "re:blocks.(9|10|11)"),
        "scl": ("scl_ft", "blocks.8"),
    },
}
Epoch = Callable[[], Any]


def images(count: int) -> data.Dataset:
    """Random images with labels."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    split = data.Split(x, np.arange(count, dtype=np.int32) % CLASSES)
    return data.Dataset(
        "random", {"train": split}, tuple(map(str, range(CLASSES))), x.shape[1:], (0.5,) * 3, (0.25,) * 3, 0, 1 << 34
    )


def ours(network: str, method: str, batch: int, count: int, kept: bool, dtype: str) -> tuple[Epoch, dict[str, Any]]:
    """An epoch of ncjax, and what is known of it."""
    name = NETWORKS[network]["jax"]
    name = name if dtype == "float32" else name.replace("(", f"(dtype={dtype}, ").replace(", )", ")")
    model, dataset, devices = resolve(name, MODEL)(num_classes=CLASSES), images(count), mesh.make()
    variables = jax.jit(model.init, static_argnums=1)(jax.random.key(0), dataset.image_shape)
    kind, layer = ("full_ft", None) if method == "full" else NETWORKS[network][method]
    card = Card(name, 0, dataset.image_shape, dataset.class_names)
    plan = plan_of(f"tuning.{kind}", Network(card, model, variables), Target(CLASSES, jax.random.key(1), layer))
    apply, seconds, kept_bytes = plan.model.apply, 0.0, 0
    if kept:
        found = prefix.build(plan.model, plan.variables, dataset, devices, start=plan.start, batch_size=batch, dtype=dtype)
        started = time.perf_counter()  # again, compiled
        found = prefix.build(plan.model, plan.variables, dataset, devices, start=plan.start, batch_size=batch, dtype=dtype)
        apply, dataset, seconds, kept_bytes = found.model.apply, found.dataset, time.perf_counter() - started, found.nbytes
    source = data.batches_of(dataset.splits["train"], dataset, devices, batch_size=batch)
    tx, _ = optim.build(optim.Optim(lr=1e-3, schedule="optim.constant"), plan.mask, source.steps, 1)
    state = loop.init_state(plan.variables, tx, plan.mask, jax.random.key(0), devices)
    step = loop.make_step(apply, cross_entropy(), tx, plan.mask, plan.live, devices, ragged=source.ragged)
    fetch = loop.make_fetch(source, devices)
    order = np.arange(count)
    first = fetch(state, source.arrays, next(iter(source.items(order))))
    compiled = step.lower(state, first).compile()
    flops = cost.flops(step, state, first, compiled) or 0.0
    held = [state]

    def epoch() -> None:
        for item in source.items(order):
            held[0], _ = compiled(held[0], fetch(held[0], source.arrays, item))
        jax.block_until_ready(held[0])

    return epoch, {
        "tuned": plan.share()[0],
        "flops_per_image": flops / batch,
        "prefix_seconds": seconds,
        "kept_bytes": kept_bytes,
    }


def rival(network: str, method: str, batch: int, count: int, bf16: bool, compiled: bool) -> tuple[Epoch, dict[str, Any]]:
    """An epoch of PyTorch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    kind, layer = ("full_ft", None) if method == "full" else NETWORKS[network][method]
    net = NETWORKS[network]["torch"](layer if kind == "scl_ft" else None)
    net = net.to(device, memory_format=torch.channels_last)
    tuned = net.names if kind == "full_ft" else trees.match(layer, net.names)
    start = net.names.index(tuned[0])
    for name, block in zip(net.names, net.blocks, strict=True):
        block.train(name in tuned).requires_grad_(name in tuned)
    chosen = [p for p in net.parameters() if p.requires_grad]
    opt = torch.optim.SGD(chosen, 1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
    split = images(count).splits["train"]
    x = torch.from_numpy(split.images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).to(device)
    y = torch.from_numpy(split.labels).long().to(device)

    run = torch.compile(net) if compiled else net

    def forward_backward(rows: slice) -> None:
        pixels = (x[rows].float() / 255 - 0.5) / 0.25
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = torch.nn.functional.cross_entropy(run(pixels, start), y[rows])
        loss.backward()

    def epoch() -> None:
        for i in range(0, count, batch):
            forward_backward(slice(i, i + batch))
            opt.step()
            opt.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    return epoch, {"tuned": sum(p.numel() for p in chosen)}


def contender(network: str, name: str, batch: int, count: int) -> tuple[Epoch, dict[str, Any]]:
    """`"ncjax scl kept"`, `"ncjax full"`, `"torch last stage"`, `"torch full bf16"`, `"... compiled"`."""
    library, _, rest = name.partition(" ")
    words = rest.split()
    method = "last stage" if "last" in words else words[0]
    if library == "torch":
        return rival(network, method, batch, count, "bf16" in words, "compiled" in words)
    return ours(network, method, batch, count, "kept" in words, "bfloat16" if "bf16" in words else "float32")


def names(gpu: bool) -> list[str]:
    """Everyone who runs."""
    out = []
    for method in ("full", "last stage", "scl"):
        mine = [f"ncjax {method}"] + ([f"ncjax {method} kept"] if method != "full" else [])
        out += [*mine, f"torch {method}", f"torch {method} bf16"]
        out += [f"{name} bf16" for name in mine] + [f"torch {method} bf16 compiled"] if gpu else []
    return out


def compare(network: str, args: argparse.Namespace) -> dict[str, Any]:
    """One network: seconds an epoch of every contender, in turns."""
    jobs, known = {}, {}
    for name in names(torch.cuda.is_available()):
        jobs[name], known[name] = contender(network, name, args.batch, args.images)
        jobs[name]()
    for name, facts in known.items():  # the same parameters are trained
        twin = name.replace("torch", "ncjax").replace(" compiled", "").replace(" bf16", "")
        assert facts["tuned"] == known[twin]["tuned"], (name, facts["tuned"], known[twin]["tuned"])
    seconds, others = common.in_turns(jobs, args.repeats)
    memory = {}
    for name in jobs:
        words = [
            sys.executable,
            __file__,
            "--networks",
            network,
            "--child",
            name,
            "--batch",
            str(args.batch),
            "--images",
            str(args.images),
        ]
        done = subprocess.run(words, capture_output=True, text=True)
        memory[name] = float(done.stdout.split()[-1]) if done.returncode == 0 else None
    return {
        "network": network,
        "seconds": seconds,
        "median": common.medians(seconds),
        "facts": known,
        "peak_mb": memory,
        "others": others,
        "images": args.images,
        "batch": args.batch,
    }


def show(row: dict[str, Any]) -> None:
    """Prints a network's rows, each with its ratio to full fine-tuning and to PyTorch's same method."""
    print(
        f"\n{row['network']}, {row['images']} images of {SIDE} px, batch {row['batch']}; others "
        f"{100 * row['others']:.0f} % of the cores" + ("  (disturbed)" if row["others"] > 0.1 else "")
    )
    print(
        f"{'':<26}{'s/epoch':>9}{'images/s':>10}{'x full':>8}{'limit':>7}{'share':>7}{'x torch':>9}{'x best':>8}"
        f"{'tuned':>12}{'MFLOP/image':>13}{'+MB':>8}"
    )
    whole = row["facts"]["ncjax full"]["flops_per_image"]
    for name, median in row["median"].items():
        facts, method = row["facts"][name], name.split(" ", 1)[1].replace(" kept", "")
        flops = f"{facts['flops_per_image'] / 1e6:.0f}" if "flops_per_image" in facts else "-"
        full = row["median"]["ncjax full" if name.startswith("ncjax") else "torch full"] / median
        limit = whole / facts["flops_per_image"] if facts.get("flops_per_image") else None
        bound = f"{limit:>7.1f}{100 * full / limit:>5.0f} %" if limit else f"{'-':>7}{'-':>7}"
        memory, bare = row["peak_mb"][name], method.replace(" compiled", "").replace(" bf16", "")
        best = min(m for other, m in row["median"].items() if other.startswith(f"torch {bare}"))
        print(
            f"{name:<26}{median:>9.3f}{row['images'] / median:>10.0f}{full:>8.1f}{bound}"
            f"{row['median'][f'torch {bare}'] / median:>9.2f}{best / median:>8.2f}{facts['tuned']:>12,}{flops:>13}"
            f"{'-' if memory is None else f'{memory:.0f}':>8}"
            + (
                f"   prefix: once {facts['prefix_seconds']:.2f} s, {facts['kept_bytes'] / 1e6:.0f} MB"
                if facts.get("kept_bytes")
                else ""
            ),
            flush=True,
        )


def main() -> None:
    """Prints a table a network; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        epoch, _ = contender(args.networks[0], args.child, args.batch, args.images)
        epoch()
        print(common.rise_of_peak(epoch))
        return
    rows = []
    for network in args.networks:
        rows.append(compare(network, args))
        show(rows[-1])
    if args.out:
        common.write(args.out, rows=json.loads(json.dumps(rows)))


if __name__ == "__main__":
    main()
