"""Runs as a table; rows in TensorBoard, Weights & Biases and Trackio, by the libraries themselves, offline."""

import json

import pytest

from ncjax import main, runs
from ncjax.core.errors import UserError
from ncjax.runs import loggers
from ncjax.runs.rows import read_rows

SMALL = ["--config=pretrain", "--config.model=models.mlp.mlp(width=6)", "--config.n_per_class=6", "--config.epochs=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("tensorboardX")
    folder = tmp_path_factory.mktemp("logged")
    argv = [*SMALL, "--config.max_test=50", "--config.log_to=[tensorboard]"]
    assert main.main([*argv, f"--workdir={folder / 'a'}"]) == 0
    return folder


def test_rows_are_in_the_event_file(folder):
    (file,) = (folder / "a" / "tensorboard").iterdir()
    text = file.read_bytes()
    names = {f"pretrain/{r['split']}/{r['layer']}/{r['metric']}" for r in read_rows(folder / "a")}
    assert len(names) > 50
    assert all(name.encode() in text for name in names)


def test_a_table_of_runs_holds_every_row(folder):
    pytest.importorskip("pandas")
    table = runs.read(folder)
    rows = read_rows(folder / "a")
    assert list(table.columns) == ["run", "study", "epoch", "phase", "split", "layer", "metric", "value"]
    assert len(table) == len(rows)
    assert set(table.run) == {"a"}
    assert table.value.tolist() == pytest.approx(
        [float("nan") if r["value"] is None else r["value"] for r in rows], nan_ok=True
    )
    assert runs.read(folder / "a").value.equals(table.value)
    with pytest.raises(UserError, match="holds no run"):
        runs.read(folder / "a" / "tables")


def test_a_chain_is_opened_into_its_steps(tmp_path):
    pytest.importorskip("pandas")
    for name in ("one", "two"):
        step = tmp_path / "chain" / name
        step.mkdir(parents=True)
        (step / "config.json").write_text('{"format": 3, "study": "pretrain"}')
        (step / "metrics.jsonl").write_text(
            '{"epoch": 0, "phase": "p", "split": "train", "layer": "l", "metric": "nc1", "value": null}\n'
        )
    (tmp_path / "chain" / "config.json").write_text('{"format": 3, "study": "chain"}')
    (tmp_path / "config.json").write_text("[]")
    table = runs.read(tmp_path)
    assert table.run.tolist() == ["chain/one", "chain/two"]
    assert table.value.isna().all()


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_rows_reach_the_library(name, tmp_path, monkeypatch):
    library = pytest.importorskip(name, reason=f"{name} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    seen = []
    if name == "trackio":
        monkeypatch.setattr(library, "log", lambda values, _log=library.log: (seen.append(values), _log(values))[1])
    assert main.main([*SMALL, "--config.max_test=50", f"--config.log_to=[{name}]", f"--workdir={tmp_path / 'run'}"]) == 0
    if name == "wandb":
        assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    else:
        assert {v["epoch"] for v in seen} == {0, 1, 2}


def test_a_logger_that_is_not_there_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    assert main.main([*SMALL, "--config.log_to=tensorboard", f"--workdir={tmp_path / 'run'}"]) == 2
    assert "log_to=tensorboard needs tensorboardX: pip install 'ncjax[tensorboard]'" in capsys.readouterr().err
    assert main.main([*SMALL, "--config.log_to=tensorbord", f"--workdir={tmp_path / 'run'}"]) == 2


def test_a_logger_that_fails_ends_nothing(tmp_path, capsys, monkeypatch):
    def broken(values, epoch):
        raise OSError("no network")

    def close():
        raise RuntimeError("never closed")

    monkeypatch.setitem(loggers.LOGGERS, "tensorboard", lambda workdir, epoch: loggers.Logger(broken, close))
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: True)
    argv = [*SMALL, "--config.max_test=50", "--config.log_to=tensorboard", f"--workdir={tmp_path / 'run'}"]
    assert main.main(argv) == 0
    assert capsys.readouterr().out.count("log_to=tensorboard: no network; rows go to metrics.jsonl alone") == 1
    assert len(read_rows(tmp_path / "run")) > 50


def test_a_run_goes_on_whoever_is_told_and_from_before_there_were_such_keys(tmp_path, capsys):
    argv = [*SMALL, "--config.max_test=50", f"--workdir={tmp_path / 'run'}"]
    assert main.main(argv) == 0
    path = tmp_path / "run" / "config.json"
    old = json.loads(path.read_text())
    for key in ("mean", "std", "log_to"):
        del old[key]
    path.write_text(json.dumps(old))
    capsys.readouterr()
    assert main.main([*argv, "--config.log_to=tensorboard"]) == 0
    assert "already finished" in capsys.readouterr().out
    assert main.main([*argv, "--config.mean=[0.5]", "--config.std=[0.2]"]) == 2
    assert "mean ([] there, [0.5] now)" in capsys.readouterr().err
