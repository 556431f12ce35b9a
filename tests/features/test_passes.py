"""Passes over a split: a second pass through the network finds what a second look at kept features finds."""

import errno
import functools
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from ncjax import nc
from ncjax.core import mesh
from ncjax.core.types import Network, widths
from ncjax.data import Data, batches_of, load
from ncjax.features import passes, resume
from ncjax.losses import cross_entropy
from ncjax.main import main
from ncjax.models.mlp import mlp
from ncjax.models.named import build
from ncjax.models.sequential import classifier_arrays
from ncjax.nc import null
from ncjax.networks.card import Card
from ncjax.runs.rows import read_rows
from ncjax.transfer import layerwise


@pytest.fixture
def network(npz):
    dataset = load(Data(f"npz:{npz}", val_fraction=0.0))
    model = mlp(num_classes=3, width=24, depth=2)
    return dataset, model, model.init(jax.random.key(0), dataset.image_shape)


@pytest.mark.parametrize("scatter", [True, False])
def test_a_second_pass_equals_a_second_look_at_kept_features(network, scatter):
    dataset, model, variables = network
    devices, classifier = mesh.make(), classifier_arrays(variables["params"])
    make = functools.partial(
        passes.make_pass, model, cross_entropy(), widths(model, variables, dataset.image_shape), devices, stats=model.layers
    )
    second = passes.make_second_pass(model, devices)
    batches = {name: batches_of(split, dataset, devices, batch_size=7) for name, split in dataset.splits.items()}
    kept = {name: make(keep=model.layers)(variables, x) for name, x in batches.items()}
    seen = {name: make(scatter=scatter)(variables, x) for name, x in batches.items()}
    for name, x in batches.items():
        options = {"readout": model.readout, "classifier": classifier}
        wanted = passes.collapse(kept[name], kept["train"], **options)
        again = functools.partial(second, variables, x)
        found = passes.collapse(seen[name], seen["train"], everywhere=True, again=again, **options)
        needed = passes.collapse(seen[name], seen["train"], again=again, **options)
        for layer in model.layers:
            a, b = wanted[layer].scalars(), found[layer].scalars()
            assert a.keys() == b.keys()
            if not scatter:  # with few examples and neither scatter nor tilt, intervals lack their smaller parts
                for end in [name for name in a if name.endswith(("_low", "_high"))]:
                    assert b.pop(end) == pytest.approx(a.pop(end), rel=0.2), end
            assert b == pytest.approx(a, rel=1e-3), layer
            assert needed[layer].nc1 == pytest.approx(a["nc1"], rel=1e-3)
            assert (needed[layer].nc1_classes is None) == scatter


def test_layers_that_are_not_kept_leave_the_rows_of_their_floor(network, monkeypatch):
    monkeypatch.setattr(null, "rows_of_a_draw", lambda classes: 11)  # of 54 examples, 22
    dataset, model, variables = network
    dims, devices = widths(model, variables, dataset.image_shape), mesh.make()
    make = functools.partial(passes.make_pass, model, cross_entropy(), dims, devices, stats=model.layers)
    batches = batches_of(dataset.splits["train"], dataset, devices, batch_size=7)
    rows = null.choose_rows(batches.size, 3)
    assert len(rows) == 22
    kept, seen = make(keep=model.layers)(variables, batches), make(keep=model.layers[:1])(variables, batches)
    assert set(kept.sample) == set()
    assert set(seen.sample) == set(model.layers[1:])
    for layer, sample in seen.sample.items():
        np.testing.assert_allclose(sample, kept.features[layer][rows], rtol=1e-5, atol=1e-6)

    class Stopped:
        """Parts that were written after three batches."""

        def __init__(self):
            self.seen, self.count = None, 0

        def read(self, like, names):
            return self.seen

        def due(self):
            return self.count == 0

        def write(self, seen):
            self.count, self.seen = 1, self.seen or seen._replace(sums=jax.tree.map(np.array, seen.sums))

    parts = Stopped()
    make(keep=model.layers[:1])(variables, batches, None, parts)
    again = make(keep=model.layers[:1])(variables, batches, None, parts)
    for layer, sample in again.sample.items():
        np.testing.assert_array_equal(sample, seen.sample[layer])


def test_layers_keep_the_order_they_were_asked_for_in(network):
    dataset, model, variables = network
    order = model.layers[::-1]  # jit would sort them by name
    look = passes.make_pass(
        model, cross_entropy(), widths(model, variables, dataset.image_shape), mesh.make(), stats=order, keep=order
    )
    seen = look(variables, batches_of(dataset.splits["train"], dataset, mesh.make(), batch_size=16))
    assert tuple(seen.stats) == tuple(seen.features) == tuple(passes.collapse(seen, seen)) == order


class Listener:
    """A run that hears what is said, and is stopped in the middle of a split."""

    def __init__(self, stop=None):
        self.stop, self.heard = stop, []

    def bar(self, split, done, size, text):
        if split == self.stop and done > size // 2:
            raise KeyboardInterrupt

    def end_progress(self):
        pass

    def say(self, text):
        self.heard.append(text)


@pytest.fixture
def extraction(network, tmp_path):
    """`(run) -> what was extracted`, with its parts in a folder."""
    dataset, model, variables = network
    card = Card("", 0, dataset.image_shape, dataset.class_names)

    def run(listener, **options):
        with resume.kept(tmp_path, listener.say, variables, dataset, **options) as written:
            options = layerwise.Measurement(batch_size=8, probes=True)
            whole = Network(card, model, variables)
            return layerwise.extract(
                whole, dataset, mesh.make(), options, classifier=None, run=listener, written=written
            ).seen

    return run


def same(found, wanted):
    def values(of):  # how long images were waited for is no value
        return {k: tuple(v._replace(waited=0.0)) for k, v in of.items()}

    jax.tree.map(np.testing.assert_array_equal, values(found), values(wanted))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_stopped_extraction_goes_on_where_it_was(extraction, tmp_path, monkeypatch, split):
    wanted = extraction(Listener())
    assert not (tmp_path / "parts").exists()  # which took less than a minute
    monkeypatch.setattr(resume, "EVERY", 0)
    with pytest.raises(KeyboardInterrupt):
        extraction(Listener(split))
    again = Listener()
    same(extraction(again), wanted)
    assert not (tmp_path / "parts").exists()
    seen = [re.search(r"(\d+) of them before it stopped", line) for line in again.heard]
    assert [s and int(s[1]) for s in seen] == ([24, None] if split == "train" else [60, 8])


@pytest.mark.parametrize("harm", ["truncated", "other rows", "other options", "other layers"])
def test_what_does_not_fit_together_is_seen_again(extraction, tmp_path, monkeypatch, harm):
    wanted = extraction(Listener())
    monkeypatch.setattr(resume, "EVERY", 0)
    with pytest.raises(KeyboardInterrupt):
        extraction(Listener("train"))
    file = next(tmp_path.rglob("0.npz"))
    with np.load(file) as rows:
        columns = dict(rows)
    if harm == "truncated":
        file.write_bytes(file.read_bytes()[:-9])
    elif harm == "other rows":
        np.savez(file, **{name: x[1:] for name, x in columns.items()})
    elif harm == "other layers":
        np.savez(file, labels=columns["labels"])
    again = Listener()
    same(extraction(again, **({"scatter": False} if harm == "other options" else {})), wanted)
    assert not any("before it stopped" in line for line in again.heard)


def test_a_full_disk_costs_no_more_than_the_parts(extraction, tmp_path, monkeypatch):
    wanted = extraction(Listener())
    monkeypatch.setattr(resume, "EVERY", 0)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resume.np, "savez", full)
    listener = Listener()
    same(extraction(listener), wanted)
    assert sum("No space left" in line for line in listener.heard) == 2  # once a split
    assert not (tmp_path / "parts").exists()


def test_without_room_for_features_a_measurement_is_the_same(network, monkeypatch):
    dataset, model, variables = network
    extract = functools.partial(
        layerwise.extract,
        Network(Card("", 0, dataset.image_shape, dataset.class_names), model, variables),
        dataset,
        mesh.make(),
        layerwise.Measurement(batch_size=16),
        classifier=classifier_arrays(variables["params"]),
    )
    wanted = extract()
    monkeypatch.setattr(layerwise, "KEEP_BYTES", 0)
    found = extract()
    assert set(wanted.seen["train"].features) == set(model.layers)
    assert set(found.seen["train"].features) < set(model.layers)
    for split in ("train", "test"):
        for layer in model.layers:
            a, b = (x.reports[split][layer] for x in (wanted, found))
            assert b.scalars() == pytest.approx(a.scalars(), rel=2e-3)
            np.testing.assert_allclose(b.nc1_classes, a.nc1_classes, rtol=2e-3)


def test_wide_layers_are_looked_at_twice_by_default():
    assert nc.empty(3, 4096).scatter is not None
    assert nc.empty(3, 4097).scatter is None


def test_pre_training_can_do_without_scatter(tmp_path, capsys):
    rows = {}
    for scatter in (True, False):
        workdir = tmp_path / str(scatter)
        assert (
            main(
                [
                    "--config=configs/pretrain.py:smoke",
                    f"--workdir={workdir}",
                    "--config.epochs=1",
                    "--config.model=models.mlp.mlp(depth=2,width=16)",
                    f"--config.scatter={scatter}",
                ]
            )
            == 0
        )
        rows[scatter] = {(r["split"], r["layer"]): r["value"] for r in read_rows(workdir) if r["metric"] == "nc1"}
    capsys.readouterr()
    assert rows[False].keys() == rows[True].keys()
    assert rows[False] == pytest.approx(rows[True], rel=1e-3)


def test_two_hosts_find_what_one_finds(npz, tmp_path):
    found = {}
    for hosts in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        out = tmp_path / f"{hosts}.json"
        command = [sys.executable, str(Path(__file__).with_name("hosts_script.py")), npz, str(out), str(hosts)]
        env = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
        running = [subprocess.Popen([*command, str(host), str(port)], env=env) for host in range(hosts)]
        try:
            assert [process.wait(timeout=120) for process in running] == [0] * hosts
        finally:
            for process in running:
                process.kill()
        found[hosts] = json.loads(out.read_text())
    assert len(found[1]) == 4
    for layer, scalars in found[1].items():
        assert found[2][layer] == pytest.approx(scalars, rel=1e-4), layer


def test_passes_that_see_the_same_are_one_program(npz):
    """Steps of a chain and seeds of a sweep build their models and passes anew; what they trace is traced once."""
    dataset, devices, traced = load(Data(f"npz:{npz}", val_fraction=0.0)), mesh.make(), []
    plain = build("models.mlp.mlp(depth=1,width=4)", 3)
    assert build("models.mlp.mlp(width=4,depth=1)", 3) is plain
    model = plain._replace(apply=lambda *args, **kwargs: traced.append(1) or plain.apply(*args, **kwargs))
    variables = model.init(jax.random.key(0), dataset.image_shape)
    for split in ("train", "test", "train"):
        look = passes.make_pass(model, cross_entropy(), {"layer0": 4}, devices, stats=["layer0"], keep=["layer0"])
        look(variables, batches_of(dataset.splits[split], dataset, devices, batch_size=6))
    assert len(traced) == 1
