"""Where rows go beside metrics.jsonl: TensorBoard, Weights & Biases, Trackio. Each an optional extra."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ncjax.core.errors import UserError

PROJECT = "ncjax"


class Logger(NamedTuple):
    """What a run tells of its numbers as they are found."""

    log: Callable[[dict[str, float], int], None]  # (values by name, epoch)
    close: Callable[[], Any]


@contextlib.contextmanager
def _extra(name: str, package: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError:
        raise UserError(f"log_to={name} needs {package}: pip install 'ncjax[{name}]'") from None


def tensorboard(workdir: Path) -> Logger:
    """Event files in `WORKDIR/tensorboard`; look with `tensorboard --logdir WORKDIR`."""
    with _extra("tensorboard", "tensorboardX"):
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
    writer = SummaryWriter(str(workdir / "tensorboard"))

    def log(values: dict[str, float], epoch: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    return Logger(log, writer.close)


def wandb(workdir: Path) -> Logger:
    """A run of project ncjax, by the workdir's name; gone on with where the run is. `WANDB_MODE=offline` is heeded."""
    with _extra("wandb", "wandb"):
        import wandb as library  # pyright: ignore[reportMissingImports]
    identity = hashlib.sha256(str(workdir.resolve()).encode()).hexdigest()[:12]
    run = library.init(project=PROJECT, name=workdir.name, id=identity, resume="allow", dir=str(workdir))
    run.define_metric("*", step_metric="epoch")
    return Logger(lambda values, epoch: run.log({**values, "epoch": epoch}), run.finish)


def trackio(workdir: Path) -> Logger:
    """A run of project ncjax, in Trackio's own folder on this machine; look with `trackio show`."""
    with _extra("trackio", "trackio"):
        import trackio as library  # pyright: ignore[reportMissingImports]
    library.init(project=PROJECT, name=workdir.name)
    return Logger(lambda values, epoch: library.log({**values, "epoch": epoch}), library.finish)


LOGGERS: dict[str, Callable[[Path], Logger]] = {f.__name__: f for f in (tensorboard, wandb, trackio)}
