"""Folders and files: a refused run leaves nothing in the way, nobody's file is overwritten, one process at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ncjax import main
from ncjax.core.errors import UserError
from ncjax.networks import delta
from ncjax.report import __main__ as report_command
from ncjax.runs import lock
from ncjax.runs.execute import execute
from ncjax.runs.run import Run

ROOT = Path(__file__).parents[2]
SMOKE = f"--config={ROOT / 'configs' / 'pretrain.py'}:smoke"
SMALL = ["--config.model=models.mlp.mlp(depth=1,width=4)", "--config.epochs=1", "--config.n_per_class=4"]


@pytest.mark.parametrize(
    "override",
    [
        "lr=1e400",
        "data=npz:nowhere.npz",
        "model=models.vit.vit_ti(patch=9)",  # found when it is built
        "loss=losses.sup_con",
    ],
)
def test_the_corrected_command_runs_after_a_refused_one(tmp_path, capsys, override):
    into = tmp_path / "a" / "b"
    wrong = [SMOKE, "--config.epochs=1", f"--config.{override}", f"--workdir={into}"]
    assert main.main(wrong) == 2
    assert not (tmp_path / "a").exists()
    assert main.main([SMOKE, *SMALL, f"--workdir={into}"]) == 0


def test_what_a_study_refuses_before_any_result_leaves_the_folder_as_it_was(tmp_path):
    def study(*, run: Run, fail: bool = True) -> dict:
        (run.workdir / "checkpoints").mkdir()
        (run.workdir / "kept.npy").write_bytes(b"x")
        if fail:
            raise UserError("no")
        return {}

    (tmp_path / "w").mkdir()
    (tmp_path / "w" / ".hidden").write_text("mine")
    with pytest.raises(UserError, match=r"holds '\.hidden'"):
        execute(study, "x.py", {"fail": True}, Run(tmp_path / "w"))
    assert [p.name for p in (tmp_path / "w").iterdir()] == [".hidden"]
    (tmp_path / "w" / ".hidden").unlink()
    with pytest.raises(UserError, match="no"):
        execute(study, "x.py", {"fail": True}, Run(tmp_path / "w"))
    assert list((tmp_path / "w").iterdir()) == []


def test_what_is_refused_after_a_result_keeps_it(tmp_path):
    def study(*, run: Run) -> dict:
        run.rows(0, "a", "b", "c", {"d": 1.0})
        raise UserError("diverged")

    with pytest.raises(UserError, match="diverged"):
        execute(study, "x.py", {}, Run(tmp_path / "w"))
    assert {p.name for p in (tmp_path / "w").iterdir()} == {"config.json", "metrics.jsonl"}


@pytest.mark.parametrize("name", ["report.html", ".writable", "config.json", "thesis.tex", "metrics.jsonl", "tables/x.csv"])
@pytest.mark.parametrize("text", ["precious", '{"lr": 1}', "[]"])
def test_a_folder_with_somebodys_file_is_left_alone(tmp_path, refused, name, text):
    into = tmp_path / "mine"
    (into / name).parent.mkdir(parents=True)
    (into / name).write_text(text)
    assert str(into) in refused(workdir=into)
    assert (into / name).read_text() == text


@pytest.mark.parametrize("name", ["thesis.tex", "report.html"])
def test_a_report_goes_nowhere_but_to_a_place_of_its_own(tmp_path, small_run, capsys, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("precious")
    assert report_command.main([str(small_run), f"--out={out}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--force" in said or "choose another" in said
    assert [p.name for p in out.iterdir()] == [name]
    assert (out / name).read_text() == "precious"
    assert report_command.main([str(small_run), f"--out={out}", "--force"]) == 0
    assert report_command.main([str(small_run), f"--out={tmp_path / 'new'}", "--archive"]) == 0
    assert report_command.main([str(small_run), f"--out={tmp_path / 'new'}"]) == 0  # its own are replaced


def test_a_report_is_not_written_over_a_run(small_run, capsys):
    before = {p: p.stat().st_mtime_ns for p in small_run.rglob("*")}
    assert report_command.main([str(small_run), f"--out={small_run}", "--archive"]) == 2
    assert "which no report wrote" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in small_run.rglob("*")} == before


def test_a_page_in_a_run_that_is_somebodys_is_left_alone(tmp_path, small_run, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(small_run, folder)
    (folder / "report.html").write_text("mine")
    assert main.main([SMOKE, *SMALL, f"--workdir={folder}"]) == 2
    assert "report.html is none that ncjax wrote" in capsys.readouterr().err
    assert (folder / "report.html").read_text() == "mine"


def test_a_model_is_written_over_nobodys_file(tmp_path, small_run, capsys):
    out = tmp_path / "m.safetensors"
    out.write_bytes(b"precious")
    assert delta.main([str(small_run), str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_bytes() == b"precious"
    assert delta.main([str(small_run), str(out), "--force"]) == 0
    assert delta.main([str(small_run), str(out)]) == 0  # one that it wrote
    for inside in (small_run / "new.safetensors", small_run / "checkpoints" / "x.safetensors"):
        assert delta.main([str(small_run), str(inside)]) == 2
        assert not inside.exists()
    assert delta.main([str(out), str(out), "--force"]) == 2
    assert "is what is read" in capsys.readouterr().err
    assert out.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


HOLD = """
import signal, sys, time
from pathlib import Path
from ncjax.runs import lock
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job that was started with nohup ignores it
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_second_is_told_who_holds_and_a_dead_holder_holds_nothing(tmp_path, end):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=rf"in use by process {holder.pid} on .* since \d"), lock.held(tmp_path):
            pass
        assert (tmp_path / lock.NAME).exists()
        holder.send_signal(end)
    with lock.held(tmp_path):
        assert f"process {os.getpid()}" in (tmp_path / lock.NAME).read_text()
    assert not (tmp_path / lock.NAME).exists()


def test_two_at_once_never_hold_together(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom ncjax.core.errors import UserError\nfrom ncjax.runs import lock\n"
        "log = open(sys.argv[2], 'a')\nend = time.time() + 2\n"
        "while time.time() < end:\n"
        "    try:\n"
        "        with lock.held(Path(sys.argv[1])):\n"
        "            log.write('+'); log.flush(); time.sleep(0.001); log.write('-'); log.flush()\n"
        "    except UserError:\n"
        "        time.sleep(0.0005)\n"
    )
    (tmp_path / "w").mkdir()
    log = tmp_path / "log"
    many = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "w"), str(log)]) for _ in range(4)]
    assert [p.wait() for p in many] == [0] * 4
    text = log.read_text()
    assert len(text) > 20
    assert text == "+-" * (len(text) // 2)


def test_a_run_in_a_folder_that_is_held_is_refused(tmp_path, refused):
    with lock.held(tmp_path):
        assert f"process {os.getpid()}" in refused(workdir=tmp_path)


def test_data_that_changed_under_a_stopped_run_is_named_with_both_hashes(tmp_path, npz, capsys):
    argv = [SMOKE, *SMALL, f"--config.data=npz:{npz}", f"--workdir={tmp_path / 'w'}"]
    assert main.main(argv) == 0
    (tmp_path / "w" / "results.json").unlink()
    then = json.loads((tmp_path / "w" / "data.json").read_text())[f"npz:{npz}"]["train"]["hash"]
    with np.load(npz) as file:
        arrays = dict(file)
    np.savez(npz, **{**arrays, "x_train": 255 - arrays["x_train"]})
    capsys.readouterr()
    assert main.main(argv) == 2
    said = capsys.readouterr().err
    assert f"train {then} then" in said
    assert said.count("\n") == 1
    np.savez(npz, **arrays)
    assert main.main(argv) == 0
