"""How fast does a whole network train? ncjax, with XLA's convolutions and with oneDNN's, against PyTorch.

    python bench/train.py [--networks resnet20 resnet18_w16 resnet18_w64 mobilenet_v2 vit] [--batch 128] [--steps 2]
        [--repeats 3] [--out FILE.json]

Needs torch. The same random images of 32 px, batch, optimiser (SGD with momentum and weight decay) and number of parameters
(checked) for everyone, in turns, on one machine, compilation apart. PyTorch runs in float32 (plain and channels last) and
under bfloat16 autocast (channels last), on a GPU compiled too; its networks are in bench/torch_models.py. "x torch" is
PyTorch's best float32 time over ours, "x best" its best of all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import common
import numpy as np
import torch
import torch_models
from steps import Made, ours

from ncjax import conv

SIDE, CLASSES = 32, 10
NETWORKS: dict[str, tuple[str, Callable[[], Any]]] = {
    "resnet20": ("models.resnet.resnet20", lambda: torch_models.resnet((3, 3, 3), False, CLASSES, None, 16, True)),
    "resnet18_w16": (
        "models.resnet.resnet18(width=16)",
        lambda: torch_models.resnet((2, 2, 2, 2), False, CLASSES, None, 16),
    ),
    "resnet18_w64": ("models.resnet.resnet18", lambda: torch_models.resnet((2, 2, 2, 2), False, CLASSES, None)),
    "mobilenet_v2": (
        "models.mobilenet.mobilenet_v2",
        lambda: torch_models.Pooled(torch_models.mobilenet_v2(), 1280, CLASSES),
    ),
    "vit": ("models.vit.vit_ti(patch=4,depth=6)", lambda: torch_models.vit(192, 3, 6, 4, SIDE, CLASSES, None)),
}


def rival(
    make: Callable[[], Any],
    batch: int,
    steps: int,
    *,
    bf16: bool = False,
    last: bool = True,
    compiled: bool = False,
    side: int = SIDE,
    classes: int = CLASSES,
) -> Made:
    """The same in PyTorch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if last else torch.contiguous_format
    net = make().train().to(device, memory_format=layout)
    x = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    x = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=layout).to(device)
    y = (torch.arange(batch) % classes).to(device)
    opt = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
    apply = torch.compile(net) if compiled else net

    def run() -> None:
        for _ in range(steps):
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                loss = torch.nn.functional.cross_entropy(apply((x.float() / 255 - 0.5) / 0.25, 0), y)
            loss.backward()
            opt.step()
            opt.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    return Made(run, sum(p.numel() for p in net.parameters()))


def contenders(network: str, batch: int, steps: int) -> dict[str, Made]:
    """Everyone who runs on this machine."""
    name, make = NETWORKS[network]
    gpu, size = torch.cuda.is_available(), {"side": SIDE, "classes": CLASSES}
    out = {"ncjax" if gpu else "ncjax xla": ours(name, batch, steps, "float32", **size)}
    if not gpu and conv.implementation() == "onednn":
        out |= {
            "ncjax onednn": ours(name, batch, steps, "float32", **size, xla=False),
            "ncjax onednn bf16": ours(name, batch, steps, "bfloat16", **size, xla=False),
        }
    out |= {
        "torch": rival(make, batch, steps, last=False),
        "torch channels_last": rival(make, batch, steps),
        "torch channels_last bf16": rival(make, batch, steps, bf16=True),
    }
    if gpu:
        out |= {
            "ncjax bf16": ours(name, batch, steps, "bfloat16", **size),
            "torch channels_last bf16 compiled": rival(make, batch, steps, bf16=True, compiled=True),
        }
    return out


def main() -> None:
    """Prints a table a network; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out")
    args = parser.parse_args()
    print(conv.header())
    rows = []
    for network in args.networks:
        made = contenders(network, args.batch, args.steps)
        assert len({m.parameters for m in made.values()}) == 1, {k: m.parameters for k, m in made.items()}
        seconds, others = common.in_turns({k: m.job for k, m in made.items()}, args.repeats)
        median, images = common.medians(seconds), args.batch * args.steps
        best = min(m for k, m in median.items() if k.startswith("torch"))
        full = min(m for k, m in median.items() if k.startswith("torch") and "bf16" not in k)
        print(
            f"\n{network}, batch {args.batch} of {SIDE} px; others {100 * others:.0f} % of the cores"
            + ("  (disturbed)" if others > 0.1 else "")
        )
        print(f"{'':<36}{'images/s':>10}{'x torch':>9}{'x best':>8}{'compile s':>11}")
        for k, m in median.items():
            print(f"{k:<36}{images / m:>10.1f}{full / m:>9.2f}{best / m:>8.2f}{made[k].compile_seconds:>11.1f}", flush=True)
        rows.append(
            {
                "network": network,
                "batch": args.batch,
                "steps": args.steps,
                "seconds": seconds,
                "median": median,
                "compile": {k: m.compile_seconds for k, m in made.items()},
                "others": others,
            }
        )
    if args.out:
        common.write(args.out, rows=rows)


if __name__ == "__main__":
    main()
