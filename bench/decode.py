"""How fast do photos become batches? ncjax's threads against torch's DataLoader with as many workers, in turns.

    python bench/decode.py [--images 600] [--batch 64] [--side 224] [--workers 2] [--out FILE.json]

Needs torch. JPEG files of 640 x 427 pixels, cut from scikit-learn's two sample photos, resized to a short side of 256 and
cropped to 224 by Pillow in both, which gives the same bytes (checked). What is timed is an epoch over all files, batches on
the host; memory is the rise of the peak of this process and, of the DataLoader, its workers too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from ncjax.core import mesh
from ncjax.data import Data, batches_of, load


def photos(folder: Path, count: int) -> None:
    """Files in folder/train/CLASS and folder/test/CLASS, each another cut and brightness."""
    rng, sources = np.random.default_rng(0), load_sample_images().images
    for split, n in (("train", count), ("test", 4)):
        for i in range(n):
            source = sources[i % 2]
            turned = np.roll(source, rng.integers(0, 400, 2), axis=(0, 1))[:, :: 1 if i % 4 < 2 else -1]
            place = folder / split / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(turned * rng.uniform(0.7, 1.2), 0, 255).astype(np.uint8)).save(
                place / f"{i:05d}.jpg", quality=92
            )


class Files(torch.utils.data.Dataset):
    """The same files, decoded as torchvision's transforms for ImageNet do."""

    def __init__(self, paths: list[str], side: int, resize: int):
        self.paths, self.side, self.resize = paths, side, resize

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        with Image.open(self.paths[i]) as picture:
            image = picture.convert("RGB")
        width, height = image.size
        scale = self.resize / min(width, height)
        image = image.resize(
            (max(self.resize, round(width * scale)), max(self.resize, round(height * scale))), Image.BILINEAR
        )
        left, top = (image.size[0] - self.side) // 2, (image.size[1] - self.side) // 2
        return np.asarray(image.crop((left, top, left + self.side, top + self.side)))


def main() -> None:
    """Prints images/s and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--resize", type=int, default=256)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        photos(Path(scratch), args.images)
        options = Data(f"folder:{scratch}", image_size=args.side, resize=args.resize, val_fraction=0.0, resident_bytes=0)
        dataset = load(options)
        split = dataset.splits["train"]
        batches = batches_of(split, dataset, mesh.make(), batch_size=args.batch)
        order = np.arange(args.images)
        files: Any = split.images
        theirs = Files(files.items.tolist(), args.side, args.resize)
        loader = torch.utils.data.DataLoader(theirs, args.batch, num_workers=args.workers, persistent_workers=True)

        def ours() -> np.ndarray:
            first, *_ = (item[0] for item in batches.items(order))  # every batch is taken
            return np.asarray(first)

        def torchs() -> np.ndarray:
            first, *_ = loader
            return first.numpy()

        jobs = {"ncjax": ours, "torch": torchs}
        firsts = [job() for job in jobs.values()]
        assert np.array_equal(*firsts), "the two do not decode alike"
        seconds, _ = common.in_turns(jobs, args.repeats)
        rise = common.rise_of_peak(ours)
    median = common.medians(seconds)
    rates = {name: args.images / s for name, s in median.items()}
    print(
        f"{args.images} photos, {args.workers} workers: ncjax {rates['ncjax']:.0f} images/s, torch {rates['torch']:.0f}; "
        f"ratio {rates['ncjax'] / rates['torch']:.2f}"
    )
    if args.out:
        common.write(
            args.out,
            images=args.images,
            batch=args.batch,
            workers=args.workers,
            seconds=seconds,
            images_per_second=rates,
            ratio=rates["ncjax"] / rates["torch"],
            rise_of_peak_mb=rise,
        )


if __name__ == "__main__":
    main()
