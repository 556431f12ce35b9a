"""Where rows go beside metrics.jsonl: TensorBoard, Weights & Biases, Trackio. Each an optional extra."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ncjax.core.errors import UserError
from ncjax.core.files import read_text, write_text
from ncjax.nc.watch import sink_of

PROJECT = "ncjax"


class Logger(NamedTuple):
    """What a run tells of its numbers as they are found."""

    log: Callable[[dict[str, float], int], None]  # (values by name, epoch)
    close: Callable[[], Any]


PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}


def check(names: Sequence[str]) -> None:
    """Refuses loggers whose library is not installed, on every host alike.

    Raises:
      UserError: one is not; the line says how it is installed.
    """
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(f"log_to={name} needs {PACKAGES[name]}: pip install 'ncjax[{name}]'")


def tensorboard(workdir: Path, epoch: int) -> Logger:
    """Event files in `WORKDIR/tensorboard`, for `tensorboard --logdir WORKDIR`; from `epoch` on they are written anew."""
    from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

    writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=epoch)
    add = sink_of(writer)

    def log(values: dict[str, float], epoch: int) -> None:
        add(values, epoch)
        writer.flush()

    return Logger(log, writer.close)


def wandb(workdir: Path, epoch: int) -> Logger:
    """A run of project ncjax, by the workdir's name; gone on with where the run is. `WANDB_MODE=offline` is heeded."""
    import wandb as library  # pyright: ignore[reportMissingImports]

    kept = workdir / "wandb_id"  # deleted with the folder: another run there is another run
    if not kept.exists():
        write_text(kept, secrets.token_hex(6))
    run = library.init(project=PROJECT, name=workdir.name, id=read_text(kept).strip(), resume="allow", dir=str(workdir))
    run.define_metric("*", step_metric="epoch")
    return Logger(lambda values, epoch: run.log({**values, "epoch": epoch}), run.finish)


def trackio(workdir: Path, epoch: int) -> Logger:
    """A run of project ncjax, in Trackio's own folder on this machine; look with `trackio show`."""
    import trackio as library  # pyright: ignore[reportMissingImports]

    library.init(project=PROJECT, name=workdir.name)
    return Logger(lambda values, epoch: library.log({**values, "epoch": epoch}), library.finish)


LOGGERS: dict[str, Callable[[Path, int], Logger]] = {f.__name__: f for f in (tensorboard, wandb, trackio)}
