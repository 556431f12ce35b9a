"""Bad input, kind by kind: each is one line that names what is wrong, exit code 2, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ncjax import main

ROOT = Path(__file__).parents[2]
SMALL = [
    f"--config={ROOT / 'configs' / 'pretrain.py'}:smoke",
    "--config.model=models.mlp.mlp(depth=1,width=4)",
    "--config.epochs=1",
    "--config.n_per_class=4",
]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs the command on a config and overrides that it must refuse; returns the line."""

    def run(*overrides: str, config: str = "pretrain.py:smoke", workdir: Path | None = None) -> str:
        path = config if Path(config.partition(":")[0]).is_absolute() else f"{ROOT / 'configs' / config}"
        into = workdir or tmp_path / "refused"
        before = sorted(into.rglob("*")) if into.exists() else None
        code = main.main([f"--config={path}", *(f"--config.{x}" for x in overrides), f"--workdir={into}"])
        said = capsys.readouterr().err
        assert code == 2, (overrides, code, said)
        assert said.startswith("ncjax: "), said
        assert said.count("\n") == 1, said
        assert (sorted(into.rglob("*")) if into.exists() else None) == before, "something is left behind"
        return said

    return run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a small perceptron, by `SMALL`; copy it before changing it."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    assert main.main([*SMALL, f"--workdir={folder}"]) == 0
    return folder


@pytest.fixture(scope="session")
def resnet_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a ResNet-8 with a stride of 2."""
    folder = tmp_path_factory.mktemp("runs") / "resnet"
    argv = [f"--config={ROOT / 'configs' / 'pretrain.py'}:smoke", "--config.epochs=1", f"--workdir={folder}"]
    assert main.main([*argv, "--config.model=models.resnet.resnet8(width=4,stem_stride=2)"]) == 0
    return folder
