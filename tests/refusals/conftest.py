"""Bad input, kind by kind: each is one line that names what is wrong, exit code 2, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ncjax import main

ROOT = Path(__file__).parents[2]


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
