"""The loop: resumes bit for bit, survives kill -9 and Ctrl-C, stops at NaN, and counts devices out."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from ncjax import data, main
from ncjax.core import mesh, trees
from ncjax.core.errors import UserError
from ncjax.core.types import Batch
from ncjax.losses import cross_entropy
from ncjax.networks import checkpoint
from ncjax.runs.rows import read_rows
from ncjax.runs.run import Run
from ncjax.training import fit, loop

ROOT = Path(__file__).parents[2]
SMOKE = [
    "--config.model=models.mlp.mlp(depth=2,width=16)",
    "--config.epochs=4",
    "--config.batch_size=16",
    "--config.augment=augment.crop_flip(strength=1.0)",
]


def command(workdir, *more):
    config = f"--config={ROOT}/configs/pretrain.py:smoke"
    return [sys.executable, "-m", "ncjax.main", config, f"--workdir={workdir}", *SMOKE, *more]


def stored(workdir, which="last"):
    return {k: np.asarray(v) for k, v in checkpoint.read(workdir / "checkpoints", which).items()}


def same_end(a, b):
    for which in ("last", "best"):
        x, y = stored(a, which), stored(b, which)
        assert x.keys() == y.keys()
        assert all(np.array_equal(x[k], y[k]) for k in x)
    assert read_rows(a) == read_rows(b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped, in a process of its own."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(workdir), check=True, capture_output=True, env=environment())
    return workdir


def environment():
    # One device: the default. The run that is killed and the one that is not must be the same program.
    return {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_ends_as_if_it_never_stopped(whole, tmp_path, sign, code):
    workdir = tmp_path / "run"
    process = subprocess.Popen(
        command(workdir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    deadline = time.time() + 120
    last = workdir / "checkpoints" / "last"
    while time.time() < deadline and not (last.is_dir() and any(p.name.isdigit() for p in last.iterdir())):
        time.sleep(0.005)
    process.send_signal(sign)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert not (workdir / "results.json").exists()
    if sign != signal.SIGKILL:
        assert "run the same command again" in errors
        assert "Traceback" not in errors
    done = subprocess.run(command(workdir), capture_output=True, text=True, check=True, env=environment())
    assert "resuming" in done.stdout
    same_end(whole, workdir)


def test_a_stop_in_the_middle_of_an_epoch_resumes_there(tmp_path, monkeypatch, capsys):
    def run(workdir, *, stop_after):
        seen = {"asked": 0}

        def interrupted(self):
            seen["asked"] += 1
            return signal.SIGINT if seen["asked"] == stop_after else 0

        monkeypatch.setattr(Run, "interrupted", interrupted)
        return main.main(command(workdir)[3:])

    assert run(tmp_path / "a", stop_after=None) == 0
    assert run(tmp_path / "b", stop_after=9) == 130  # 80 examples in batches of 16: inside the second epoch
    assert "stopped at step 7" in capsys.readouterr().err
    assert run(tmp_path / "b", stop_after=None) == 0
    same_end(tmp_path / "a", tmp_path / "b")


def test_a_nan_loss_stops_the_run_and_keeps_the_checkpoint(tmp_path, capsys, monkeypatch):
    workdir = tmp_path / "run"
    calls = {"n": 0}
    real = fit.Tracker.__call__

    def poison(self, state, epoch, seen):
        value = real(self, state, epoch, seen)
        calls["n"] += 1
        if calls["n"] == 2:  # after two good epochs, as a bad batch would
            leaf = state.variables["params"]["head"]["linear"]["bias"]
            state.variables["params"]["head"]["linear"]["bias"] = leaf.at[0].set(float("nan"))
        return value

    monkeypatch.setattr(fit.Tracker, "__call__", poison)
    assert main.main([*command(workdir)[3:], "--config.measure_every=0"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "loss became nan at step 11 (learning rate" in message
    assert "last (step 10)" in message
    assert stored(workdir)["step"] == 10


def test_a_diverging_run_stops_at_once(tmp_path, capsys):
    assert main.main([*command(tmp_path / "run")[3:], "--config.lr=1e30", "--config.warmup_epochs=0"]) == 2
    assert "try a lower lr" in capsys.readouterr().err


def test_devices_do_not_change_the_numbers(tmp_path):
    script = Path(__file__).with_name("devices_script.py")
    out = tmp_path / "out.json"
    env = {**os.environ, "JAX_ENABLE_X64": "1", "JAX_NUM_CPU_DEVICES": "8", "NPROC": "16"}
    subprocess.run([sys.executable, str(script), str(out)], check=True, env=env)
    found = json.loads(out.read_text())
    assert set(found) == {"1", "2", "8"}
    for count in ("2", "8"):
        for key, value in found["1"].items():
            rtol = 1e-5 if key == "collapse" else 1e-6  # class statistics are float32 sums
            np.testing.assert_allclose(found[count][key], value, rtol=rtol, atol=1e-7, err_msg=f"{key} on {count} devices")


def test_a_damaged_checkpoint_is_one_line(whole, tmp_path, capsys):
    import shutil

    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    for file in (workdir / "checkpoints" / "last").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        checkpoint.read(workdir / "checkpoints", "last")
    code = main.main([f"--config={ROOT}/configs/measure.py:smoke,init={workdir}", f"--workdir={tmp_path / 'm'}"])
    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_another_architecture_is_refused_by_name(whole, tmp_path, capsys):
    code = main.main(
        [
            f"--config={ROOT}/configs/measure.py:smoke",
            f"--config.init={whole}",
            "--config.model=models.resnet.resnet14(width=4, stem_stride=2)",
            f"--workdir={tmp_path / 'm'}",
        ]
    )
    assert code == 2
    message = capsys.readouterr().err
    assert "was trained as models.mlp.mlp(depth=2,width=16)" in message


def test_a_checkpoint_returns_what_was_saved(tmp_path):
    import jax
    import jax.numpy as jnp

    store = checkpoint.Store(tmp_path)
    tree = {"layer3.0": {"kernel": jnp.arange(6.0).reshape(2, 3)}, "empty": {}, "step": jnp.int32(3)}
    store.save("last", 3, tree)
    store.save("last", 5, tree)
    store.save("last", 5, jax.tree.map(lambda x: x + 1, tree))  # a step that is stored is left alone
    assert store.latest("last") == 5
    assert trees.differences(store.restore("last", tree), tree) == ""
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(store.restore("last", tree)), jax.tree.leaves(tree), strict=True)
    )
    with pytest.raises(UserError, match="another run"):
        store.restore("last", {**tree, "more": jnp.ones(1)})
    store.close()


def test_totals_are_of_their_own_epoch_and_orders_differ(tmp_path, monkeypatch):

    counts = []
    real = fit.Tracker.__call__

    def watch(self, state, epoch, seen):
        counts.append((float(state.totals.count), seen["images"]))
        return real(self, state, epoch, seen)

    monkeypatch.setattr(fit.Tracker, "__call__", watch)
    assert main.main([*command(tmp_path / "run")[3:], "--config.measure_every=0"]) == 0
    assert counts == [(80.0, 80)] * 4
    first, again, second, other = (loop.order_of(50, 50, seed, epoch) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)))
    assert sorted(first) == list(range(50))
    assert (first == again).all()
    assert (first != second).any()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("values", "kept"),
    [((0.3, 0.5, 0.5, 0.4), 3), ((0.2, 0.2, 0.2, 0.2), 4)],
    ids=["a tie", "all alike"],
)
def test_of_equal_epochs_the_latest_is_kept(tmp_path, monkeypatch, values, kept):
    real = fit.Tracker.__call__
    monkeypatch.setattr(
        fit.Tracker, "__call__", lambda self, state, epoch, seen: (real(self, state, epoch, seen), values[epoch])[1]
    )
    assert main.main([*command(tmp_path / "run")[3:], "--config.measure_every=0"]) == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["results"]["best_epoch"] == kept


def test_without_validation_the_last_epoch_is_kept_and_said(tmp_path, capsys):
    assert main.main([*command(tmp_path / "run")[3:], "--config.measure_every=0", "--config.val_fraction=0"]) == 0
    assert "the last epoch is kept" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "results.json").read_text())["results"]["best_epoch"] == 4


def test_a_left_over_image_weighs_one_image():
    """The gradient of a batch of one in steps of four is a quarter of what it would be as a batch of its own."""
    devices, tx = mesh.make(), optax.sgd(1.0)

    def apply(variables, image, **_):
        return {"logits": image.reshape(len(image), -1) @ variables["params"]["head"], "batch_stats": {}}, variables

    variables = {"params": {"head": np.ones((2, 3), np.float32)}, "batch_stats": {}}
    image = np.random.default_rng(0).normal(size=(8, 1, 2, 1)).astype(np.float32)
    batch = Batch(image=image, label=np.arange(8) % 3, mask=np.eye(1, 8, dtype=np.float32)[0])
    mask = {"head": True}

    def moved(ragged):
        state = loop.init_state(variables, tx, mask, jax.random.key(0), devices)
        step = loop.make_step(apply, cross_entropy(), tx, mask, frozenset(), devices, ragged=ragged)
        state, value = step(state, batch)
        return np.asarray(state.variables["params"]["head"]) - 1, float(value)

    (alone, value), (left_over, same) = moved(1), moved(4)
    assert np.abs(alone).max() > 0.01
    assert left_over == pytest.approx(alone / 4, rel=1e-5)
    assert value == same


def test_every_view_counts_in_a_left_over_batch():
    images = np.zeros((10, 4, 4, 1), np.uint8)
    whole = data.Dataset("x", {}, ("0", "1"), (4, 4, 1), (0.0,), (1.0,), 0, 1 << 20)
    split = data.Split(images, np.zeros(10, np.int32))
    batches = data.batches_of(split, whole, mesh.make(), batch_size=4, views=2, augment=lambda key, image: image)
    masks = [
        float(np.sum(batches.fetch(batches.arrays, item, jax.random.key(0)).mask)) for item in batches.items(np.arange(10))
    ]
    assert [m / batches.ragged for m in masks] == [1, 1, 0.5]


def test_epochs_of_any_length_see_every_example_equally_often():
    for size in (64, 128, 320, 640):  # below, at and beyond one pass over 128
        seen = np.concatenate([loop.order_of(size, 128, 3, epoch) for epoch in range(2 * 640 // size)])
        assert (np.bincount(seen, minlength=128) == 10).all()
        assert all(sorted(seen[i : i + 128]) == list(range(128)) for i in range(0, len(seen), 128))
    images = np.arange(300, dtype=np.float32).reshape(300, 1, 1, 1)
    devices = mesh.make()
    whole = data.Dataset("x", {}, ("0", "1"), (1, 1, 1), (0.0,), (1.0,), 0, 1 << 20)
    once = data.batches_of(data.Split(images, np.zeros(300, np.int32)), whole, devices, batch_size=20)
    batches, rows = data.repeated(once, 3, devices), []
    for epoch in range(5):  # 3 batches of 20 an epoch: 300 images
        for item in batches.items(loop.order_of(batches.size, batches.examples, 0, epoch)):
            rows.append(np.asarray(batches.fetch(batches.arrays, item, None).image).ravel())
    assert sorted(np.concatenate(rows)) == list(range(300))
