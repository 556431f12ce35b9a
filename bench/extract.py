"""How fast do images become features? ncjax against PyTorch, which runs channels last with BatchNorm folded.

    python bench/extract.py [--networks resnet50 mobilenet_v2] [--side 224] [--images 128] [--repeats 3] [--out FILE.json]

Needs torch. The same random pixels, batch and number of parameters for both, in turns, on one machine: from uint8 on the
device to the pooled penultimate features on the host. PyTorch's networks are those of bench/torch_models.py, under
inference_mode, convolutions and BatchNorm fused by torch.fx, in float32 and under bfloat16 autocast, on a GPU compiled too.
"x torch" is PyTorch's float32 time over ours, "x best" its fastest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import common
import jax
import numpy as np
import torch
import torch_models
from torch.fx.experimental.optimization import fuse

from ncjax import conv, data
from ncjax.core import mesh, trees
from ncjax.core.roles import MODEL, resolve
from ncjax.core.types import widths
from ncjax.features import passes
from ncjax.losses import cross_entropy

NETWORKS: dict[str, tuple[str, Callable[[], Any]]] = {
    "resnet18": ("models.resnet.resnet18(stem=imagenet)", lambda: torch_models.imagenet_resnet((2, 2, 2, 2), False)),
    "resnet50": ("models.resnet.resnet50(stem=imagenet)", lambda: torch_models.imagenet_resnet((3, 4, 6, 3), True)),
    "mobilenet_v2": ("models.mobilenet.mobilenet_v2", torch_models.mobilenet_v2),
}


def pixels(count: int, side: int) -> data.Dataset:
    """Random images."""
    x = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    split = data.Split(x, np.zeros(count, np.int32))
    return data.Dataset("random", {"train": split}, ("0", "1"), x.shape[1:], (0.5,) * 3, (0.25,) * 3, 0, 1 << 34)


def ours(name: str, dataset: data.Dataset, batch: int, dtype: str) -> tuple[Callable[[], np.ndarray], int]:
    """(a pass over the images, parameters of the backbone)."""
    model, devices = resolve(name, MODEL)(num_classes=2, dtype=dtype), mesh.make()
    variables = jax.jit(model.init, static_argnums=1)(jax.random.key(0), dataset.image_shape)
    source = data.batches_of(dataset.splits["train"], dataset, devices, batch_size=batch)
    dims = widths(model, variables, dataset.image_shape)
    run = passes.make_pass(model, cross_entropy(), dims, devices, keep=[model.penultimate])
    count = trees.count(trees.only(variables, model.backbone)["params"])
    return lambda: run(variables, source).features[model.penultimate], count


def rival(
    make: Callable[[], Any], dataset: data.Dataset, batch: int, bf16: bool, compiled: bool
) -> tuple[Callable[[], np.ndarray], int]:
    """The same in PyTorch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    plain = make().eval()
    count = sum(p.numel() for p in plain.parameters())
    net = fuse(plain).to(device, memory_format=torch.channels_last)
    net = torch.compile(net) if compiled else net
    x = torch.from_numpy(dataset.splits["train"].images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    x = x.to(device)

    def run() -> np.ndarray:
        out = []
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            for i in range(0, len(x), batch):
                out.append(net((x[i : i + batch].float() / 255 - 0.5) / 0.25).float().mean((2, 3)))
            return torch.cat(out).cpu().numpy()

    return run, count


def main() -> None:
    """Prints a table a network; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["resnet50", "mobilenet_v2"], choices=list(NETWORKS))
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out")
    args = parser.parse_args()
    print(conv.header())
    dataset, gpu, rows = pixels(args.images, args.side), torch.cuda.is_available(), []
    for network in args.networks:
        name, make = NETWORKS[network]
        made = {
            "ncjax": ours(name, dataset, args.batch, "float32"),
            "torch": rival(make, dataset, args.batch, False, False),
            "torch bf16": rival(make, dataset, args.batch, True, False),
        }
        if gpu or conv.implementation() == "onednn":
            made["ncjax bf16"] = ours(name, dataset, args.batch, "bfloat16")
        if gpu:
            made["torch bf16 compiled"] = rival(make, dataset, args.batch, True, True)
        assert len({count for _, count in made.values()}) == 1, {k: count for k, (_, count) in made.items()}
        seconds, others = common.in_turns({k: job for k, (job, _) in made.items()}, args.repeats)
        median = common.medians(seconds)
        best = min(m for k, m in median.items() if k.startswith("torch"))
        print(
            f"\n{network}, {args.images} images of {args.side} px, batch {args.batch}; others {100 * others:.0f} % of "
            "the cores" + ("  (disturbed)" if others > 0.1 else "")
        )
        print(f"{'':<22}{'s':>8}{'images/s':>10}{'x torch':>9}{'x best':>8}")
        for k, m in median.items():
            print(f"{k:<22}{m:>8.3f}{args.images / m:>10.1f}{median['torch'] / m:>9.2f}{best / m:>8.2f}", flush=True)
        rows.append(
            {
                "network": network,
                "side": args.side,
                "images": args.images,
                "batch": args.batch,
                "seconds": seconds,
                "median": median,
                "others": others,
            }
        )
    if args.out:
        common.write(args.out, rows=rows)


if __name__ == "__main__":
    main()
