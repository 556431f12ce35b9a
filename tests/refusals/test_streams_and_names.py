"""Whatever the locale, whatever becomes of standard output, whatever a run is called: its results arrive."""

from __future__ import annotations

import csv
import importlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ncjax import main, report
from ncjax.report import tables
from ncjax.report.tables import Cell, Table
from ncjax.runs.run import Run

ROOT = Path(__file__).parents[2]
ARGV = [
    f"--config={ROOT / 'configs' / 'pretrain.py'}:smoke",
    "--config.model=models.mlp.mlp(depth=1,width=4)",
    "--config.epochs=1",
    "--config.n_per_class=4",
]
LOCALES = (
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii"},
)


def _command(module: str, *args: str, env: dict[str, str] | None = None, after: str = "") -> subprocess.CompletedProcess:
    line = " ".join([sys.executable, "-m", module, *(f"'{a}'" for a in args), after])
    own = {k: v for k, v in os.environ.items() if k not in ("LC_ALL", "LANG", "PYTHONUTF8")}
    return subprocess.run(["bash", "-c", line], env={**own, **(env or {})}, capture_output=True, cwd=ROOT)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "é.npz"
    rng = np.random.default_rng(0)
    np.savez(path, X=rng.normal(size=(60, 4)), y=np.arange(60) % 3)
    return path


@pytest.mark.parametrize("env", LOCALES, ids=lambda env: next(iter(env)))
def test_utf8_is_written_whatever_the_locale(features, env):
    done = _command("ncjax.nc", str(features), env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode()
    assert done.stderr == b""


def test_a_run_ends_well_in_the_poorest_locale(tmp_path):
    done = _command("ncjax.main", *ARGV, f"--workdir={tmp_path / 'w'}", env=LOCALES[0])
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert (tmp_path / "w" / "results.json").exists()
    done = _command("ncjax.main", *ARGV, f"--workdir={tmp_path / 'é→'}", env=LOCALES[0])
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"this locale" in done.stderr


@pytest.mark.parametrize("after", ["| true", ">&-", "2>&-", ">&- 2>&- <&-", "> /dev/full"])
def test_a_command_whose_output_goes_nowhere_ends_without_a_traceback(features, after):
    done = _command("ncjax.nc", str(features), after=after)
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_a_run_whose_reader_goes_away_is_finished(tmp_path):
    done = _command("ncjax.main", *ARGV, f"--workdir={tmp_path / 'w'}", after="| head -1")
    assert b"Traceback" not in done.stderr
    assert (tmp_path / "w" / "results.json").exists()
    assert (tmp_path / "w" / "report.html").exists()


@pytest.mark.parametrize("module", ["main", "nc", "report", "delta", "weights", "conv"])
@pytest.mark.parametrize("args", [("--frob",), ("--frob=3", "x"), ("x", "y", "z", "--json=3")])
def test_usage_errors_are_one_line(module, args, capsys):
    place = {"main": "main", "delta": "delta", "weights": "weights"}.get(module, f"{module}.__main__")
    assert importlib.import_module(f"ncjax.{place}").main(list(args)) == 2
    said = capsys.readouterr()
    assert said.err.startswith(("ncjax: ", f"ncjax.{module}: "))
    assert said.err.count("\n") == 1
    assert said.out == ""


NAMES = ["=1+1 $5_$ \\frac$", "a&b%c#d_e{f}~g^h\\i [red]x[/blue]", "<b>&amp; é→× a\nb'\""]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_any_name_has_its_page_and_tables(small_run, tmp_path, name, capsys):
    folder = tmp_path / "runs" / name
    shutil.copytree(small_run, folder)
    page = report.write([folder, small_run], tmp_path / "out", title=name)
    assert "<b>&amp;</b>" not in page.read_text()
    for file in (tmp_path / "out" / "tables").glob("*.csv"):
        with open(file, newline="") as text:
            for cells in csv.reader(text):
                assert not any(re.match(r"\s*[=+@]|\s*-(?!\d|\.)", cell) for cell in cells)
    assert main.main([*ARGV, f"--workdir={folder}"]) == 0


@pytest.mark.parametrize("character", list("\\{}&%$#_~^"))
def test_every_character_that_latex_reads_is_escaped(character):
    table = Table("t", "", ["a", character], [[Cell("x", character), Cell(1.0, "1")]])
    text = tables.to_latex(table)
    plain = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    wanted = plain.get(character, "\\" + character)
    assert f"a & {wanted} \\\\" in text
    assert f"{wanted} & 1 \\\\" in text


@pytest.mark.parametrize("value", ["=1", "+1", "-x", "@x", " =1", "\t=1"])
def test_no_cell_is_a_formula(value):
    assert tables.to_csv(Table("t", "", ["a"], [[tables.text(value)]])).splitlines()[1].lstrip('"').startswith("'")
    assert tables.to_csv(Table("t", "", ["a"], [[Cell(-1.5, "-1.5")]])).splitlines()[1] == "-1.5"


def test_a_folder_whose_name_is_no_text_is_refused_before_training(tmp_path, refused):
    assert "UTF-8" in refused(workdir=tmp_path / os.fsdecode(b"\xff"))


def test_ctrl_c_while_a_line_is_printed_prints_it_once(tmp_path, capfd):
    class Stream(io.StringIO):
        """Is interrupted in the middle of a line."""

        sent = False

        def write(self, text: str) -> int:
            if "epoch" in text and not self.sent:
                self.sent = True
                os.kill(os.getpid(), signal.SIGINT)
            return super().write(text)

    stream = Stream()
    run = Run(tmp_path, console=Console(file=stream, width=100))
    with run.guarded():
        run.say("epoch 1")
        run.say("epoch 2")
        assert run.interrupted() == signal.SIGINT
    assert stream.getvalue() == "epoch 1\nepoch 2\n"
    assert capfd.readouterr().err.count("stopping after this step") == 1
