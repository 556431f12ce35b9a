"""What a run prints fits the terminal, and Ctrl-C is one line from the first moment."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from ncjax.runs.run import Run, _pieces


@pytest.mark.parametrize("width", [40, 80, 160])
def test_tables_are_cut_between_columns_and_nowhere_else(tmp_path, width):
    out = io.StringIO()
    run = Run(tmp_path, console=Console(file=out, width=width, highlight=False, soft_wrap=True))
    columns = ["block", *(f"score number {i}" for i in range(7))]
    rows = [[f"layer{r}.0", *(f"{r}.{i}23456" for i in range(7))] for r in range(3)]
    run.table("scores", columns, rows)
    text = out.getvalue()
    assert "…" not in text
    for row in rows:
        assert all(cell in text for cell in row)
    assert max(map(len, text.splitlines())) <= width
    pieces = _pieces(columns, rows, width)
    assert sorted({k for piece in pieces for k in piece}) == list(range(8))
    assert all(piece[0] == 0 for piece in pieces)
    assert (len(pieces) == 1) == (width == 160)


@pytest.mark.parametrize(
    ("after", "sign"), [(0.3, signal.SIGINT), (0.8, signal.SIGTERM), (1.4, signal.SIGINT), (2.5, signal.SIGTERM)]
)
def test_a_signal_while_modules_are_imported_is_one_line(tmp_path, after, sign):
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from ncjax.__main__ import command\nprint('begun', flush=True)\nraise SystemExit(command())"
    )
    env = {**os.environ, "NCJAX_MALLOC": "system"}
    words = [sys.executable, "-c", code, "pretrain:smoke"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"begun\n"
        time.sleep(after)
        process.send_signal(sign)
        said = process.stderr.read().decode()
        process.wait()
    assert process.returncode == 128 + sign, said
    assert "Traceback" not in said
    assert "stopped" in said


def test_help_into_a_closed_pipe_says_nothing(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "ncjax", "--help"], stdout=write, stderr=subprocess.PIPE, cwd=tmp_path)
    assert done.stderr == b""
