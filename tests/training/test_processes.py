"""Whole runs over several processes: the same numbers, one stop for all, and on from there on other devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from ncjax.networks import checkpoint
from ncjax.runs.rows import read_rows

CONFIG = """
from ncjax import config
from ncjax.models.mlp import mlp
import jax
import numpy as np


def net(num_classes, projection_layers=0):
    model = mlp(num_classes=num_classes, projection_layers=projection_layers, width=6, depth=2, dtype="float64")
    double = lambda key, shape: jax.tree.map(lambda x: x.astype(float), model.init(key, shape))
    return model._replace(init=double)


def get_config(arg=""):
    common = dict(data="npz:{npz}", n_per_class=12, batch_size=7, epochs=2, lr=0.05)
    steps = dict(
        pretrain=dict(study="pretrain", model="{file}:net", val_fraction=0.2, **common),
        source=dict(study="measure", init="@pretrain", data="npz:{npz}", n_per_class=12),
    )
    return config.make("chain", arg, title="several", steps=steps, smoke=dict())
"""


def start(words, workdir, count, rank=0, port=0, devices=1, **env):
    several = [f"--coordinator=127.0.0.1:{port}", f"--process-count={count}", f"--process-id={rank}"] if count > 1 else []
    # as from a terminal: a job that was started with nohup ignores Ctrl-C
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\\n"
        "from ncjax.__main__ import command; sys.argv[0] = 'ncjax'; sys.exit(command())"
    ).replace("\\n", "\n")
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "NCJAX_MALLOC": "system", **env}
    command = [sys.executable, "-c", code, *words, f"--workdir={workdir}", *several]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def ended(running):
    """(exit code, what it said, its complaints) of each."""
    try:
        said = [process.communicate(timeout=240) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, *text) for process, text in zip(running, said, strict=True)]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    rng = np.random.default_rng(1)
    labels = {"train": np.repeat(np.arange(3), 20), "test": np.repeat(np.arange(3), 6)}
    arrays = {f"y_{split}": y for split, y in labels.items()}
    arrays |= {f"x_{s}": (80 * y[:, None, None, None] + rng.integers(0, 90, (len(y), 4, 4, 1))) for s, y in labels.items()}
    np.savez(
        folder / "data.npz", **{k: v.astype(np.uint8) for k, v in arrays.items()}, class_names=np.array(["a", "b", "c"])
    )
    path = folder / "several.py"
    path.write_text(CONFIG.replace("{npz}", str(folder / "data.npz")).replace("{file}", str(path)))
    return path


def test_a_chain_over_two_processes_has_the_numbers_of_one(config, tmp_path):
    port, double = free_port(), {"JAX_ENABLE_X64": "1"}
    for name, count in (("one", 1), ("two", 2)):
        running = [
            start([str(config)], tmp_path / name, count, rank, port, devices=2 // count, **double) for rank in range(count)
        ]
        found = ended(running)
        assert [code for code, *_ in found] == [0] * count, found
    assert "done in" in found[0][1]
    assert "done in" not in found[1][1]  # the first alone prints and writes
    one, two = (checkpoint.read(tmp_path / name / "pretrain" / "checkpoints", "last") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for path in one:
        np.testing.assert_allclose(np.asarray(two[path]), np.asarray(one[path]), rtol=1e-8, atol=1e-10, err_msg=path)
    for step in ("pretrain", "source"):
        one, two = (read_rows(tmp_path / name / step) for name in ("one", "two"))
        assert [{k: v for k, v in row.items() if k != "value"} for row in one] == [
            {k: v for k, v in row.items() if k != "value"} for row in two
        ]
        for a, b in zip(one, two, strict=True):
            assert (a["value"] is None) == (b["value"] is None), a
            if a["value"] is not None:  # moments are kept in float32
                assert b["value"] == pytest.approx(a["value"], rel=2e-4, abs=1e-5), a
    records = [json.loads((tmp_path / name / "pretrain" / "results.json").read_text()) for name in ("one", "two")]
    assert records[1]["environment"]["processes"] == 2
    assert records[0]["results"]["final"].keys() == records[1]["results"]["final"].keys()


PRETRAIN = ["pretrain:smoke", "--model=models.mlp.mlp(depth=1,width=4)", "--batch_size=16", "--epochs=400"]


def last_step(workdir):
    folder = workdir / "checkpoints" / "last"
    return max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0) if folder.is_dir() else 0


def test_signals_at_different_moments_stop_both_at_one_step_and_other_devices_go_on(tmp_path):
    workdir, port = tmp_path / "run", free_port()
    running = [start(PRETRAIN, workdir, 2, rank, port) for rank in range(2)]
    until = time.time() + 120
    while last_step(workdir) < 10 and time.time() < until:
        time.sleep(0.05)
    running[1].send_signal(signal.SIGTERM)
    time.sleep(0.3)
    begun = time.time()
    running[0].send_signal(signal.SIGINT)
    found = ended(running)
    assert time.time() - begun < 60  # generous: the machine may be busy
    assert {code for code, *_ in found} <= {143, 130}, found
    stops = {line for _, _, errors in found for line in errors.splitlines() if "saved" in line}
    assert stops == {f"ncjax: stopped at step {last_step(workdir)}, saved; run the same command again to go on"}, found
    assert not any("Traceback" in errors for *_, errors in found)
    for devices in (8, 1):  # goes on where it was, and is stopped again
        before = last_step(workdir)
        again = start(PRETRAIN, workdir, 1, devices=devices)
        while last_step(workdir) < before + 10 and time.time() < until + 60:
            time.sleep(0.05)
        again.send_signal(signal.SIGTERM)
        ((code, said, errors),) = ended([again])
        assert code == 143, errors
        assert f"resuming after step {before} of" in said
        assert last_step(workdir) >= before + 10


def test_a_killed_process_and_a_folder_of_ones_own_end_all_with_one_line(tmp_path):
    port = free_port()
    running = [start(PRETRAIN, tmp_path / "run", 2, rank, port) for rank in range(2)]
    until = time.time() + 120
    while last_step(tmp_path / "run") < 10 and time.time() < until:
        time.sleep(0.05)
    running[1].kill()
    (code, _, errors), _ = ended(running)
    assert code == 1
    assert errors.count("\n") == 1
    assert "process 1 on" in errors
    port = free_port()
    found = ended([start(PRETRAIN, tmp_path / f"own{rank}", 2, rank, port) for rank in range(2)])
    assert [code for code, *_ in found] == [2, 2]
    for *_, errors in found:
        assert errors.count("\n") == 1, errors
        assert "all processes need one that they share" in errors


def test_flags_that_do_not_go_together_are_refused(refused_words):
    assert "go together" in refused_words("--coordinator=127.0.0.1:1234")
    assert "go together" in refused_words("--coordinator=h:1", "--process-count=2", "--process-id=2")


def test_outside_a_cluster_distributed_is_one_line(tmp_path):
    env = {k: "" for k in os.environ if k.startswith(("SLURM", "OMPI"))}
    ((code, _, errors),) = ended([start(["pretrain:smoke", "--distributed"], tmp_path / "run", 1, **env)])
    assert code == 2
    assert errors.count("\n") == 1
    assert "--coordinator=HOST:PORT" in errors
    assert not (tmp_path / "run").exists()


@pytest.fixture
def refused_words(capsys):
    from ncjax.__main__ import command

    def run(*words):
        assert command(["pretrain:smoke", *words]) == 2
        assert jax.process_count() == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    return run
