"""A fine-tuned model is what it changed, bound to its base; foreign weights load strictly or not at all."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from ncjax import data, main
from ncjax.core import mesh, trees
from ncjax.core.errors import UserError
from ncjax.core.types import Network, widths
from ncjax.features import passes
from ncjax.losses import cross_entropy
from ncjax.models.resnet import resnet8, resnet18
from ncjax.networks import card, checkpoint, delta, weights
from ncjax.networks.load import Init, load, load_data_for
from ncjax.runs.run import Run
from ncjax.transfer import few_shot, program
from ncjax.transfer.grid_search import Search
from ncjax.tuning import plans

ROOT = Path(__file__).parents[2]
PRETRAIN = [f"--config={ROOT}/configs/pretrain.py:smoke,epochs=1,measure_every=0"]
FINETUNE = [f"--config={ROOT}/configs/finetune.py:smoke,epochs=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two bases and, from the first, an SCL-FT run, a LoRA and a spectral one."""
    root = tmp_path_factory.mktemp("runs")
    for name, more in (("base", []), ("other", ["--config.seed=1"])):
        assert main.main([*PRETRAIN, *more, f"--workdir={root / name}"]) == 0
    for name, method in (
        ("scl", "tuning.scl_ft"),
        ("lora", "tuning.lora(rank=2)"),
        ("spectral", "tuning.spectral(rank=2)"),
    ):
        assert (
            main.main(
                [*FINETUNE, f"--config.init={root / 'base'}", f"--config.method={method}", f"--workdir={root / name}"]
            )
            == 0
        )
    return root


@pytest.mark.parametrize("name", ["scl", "lora", "spectral"])
def test_base_and_delta_make_the_model(runs, name, tmp_path):
    stored = {p for p in checkpoint.read(runs / name / "checkpoints", "best") if p.startswith("variables/")}
    _, model, variables = load(Init(str(runs / name), which="best"))
    assert len(stored) < len(trees.paths(variables))
    _, _, again = load(Init(str(runs / name / delta.NAME)))
    assert trees.digest(again) == trees.digest(variables)
    _, _, base = load(Init(str(runs / "base")))
    merged = name in ("lora", "spectral")  # kernels take their updates in
    frozen = {
        p: x
        for p, x in trees.paths(variables).items()
        if f"variables/{p}" not in stored and not (merged and p.endswith("kernel"))
    }
    assert frozen
    assert all(np.array_equal(x, trees.paths(base)[p]) for p, x in frozen.items())
    out = tmp_path / "whole.safetensors"
    assert delta.main([str(runs / name), str(out)]) == 0
    alone, joined, whole = load(Init(str(out)))
    assert alone.base is None
    images = jax.random.normal(jax.random.key(0), (4, *alone.image_shape))
    for layer, x in model.apply(variables, images)[0].items():
        np.testing.assert_allclose(joined.apply(whole, images)[0][layer], x, rtol=1e-5, atol=1e-6)


def test_a_model_tuned_from_a_merged_one_is_what_was_measured(runs):
    """A probe of a LoRA model; and LoRA again, which starts at the merged model."""
    tuned = runs / "probe_of_lora"
    assert (
        main.main([*FINETUNE, f"--config.init={runs / 'lora'}", "--config.method=tuning.probe", f"--workdir={tuned}"]) == 0
    )
    found, model, variables = load(Init(str(tuned), which="best"))
    dataset, devices = load_data_for(found, data.Data("embedded.digits", n_per_class=4)), mesh.make()
    run_pass = passes.make_pass(model, cross_entropy(), widths(model, variables, found.image_shape), devices)
    seen = run_pass(variables, data.batches_of(dataset.splits["test"], dataset, devices, batch_size=64))
    assert seen.accuracy == json.loads((tuned / "results.json").read_text())["results"]["accuracy"]["test"]
    whole = load(Init(str(runs / "lora")))
    first, network, variables = whole
    plan = plans.plan_of("tuning.lora(rank=1)", whole, plans.Target(10, jax.random.key(3)))
    images = jax.random.normal(jax.random.key(0), (2, *first.image_shape))
    for block in network.backbone:
        np.testing.assert_allclose(
            plan.model.apply(plan.variables, images)[0][block],
            network.apply(variables, images)[0][block],
            rtol=1e-5,
            atol=1e-6,
        )


def test_what_a_network_or_a_method_cannot_take_is_one_line(runs, capsys):
    for option, words in (
        ("channels=3", "cannot take"),
        ("method=optim.sgd", "is no tuning method: it is of ncjax.optim"),
        ("method=tuning.layer_ft(layer=stem)", "no setting 'layer'"),
        ("method=tuning.last_k(k=two)", "expected int"),
        ("batch_norm=update,method=tuning.probe", "takes no steps"),
    ):
        flags = [f"--config.{o}" for o in option.split(",")]
        assert main.main([*FINETUNE, f"--config.init={runs / 'base'}", *flags, f"--workdir={runs / 'refused'}"]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1


def test_a_run_does_not_go_on_from_another_base(runs, tmp_path, capsys):
    begun, kept = tmp_path / "scl", runs / "kept"
    shutil.copytree(runs / "scl", begun)
    (begun / "results.json").unlink()
    (runs / "base").rename(kept)
    shutil.copytree(runs / "other", runs / "base")
    try:
        assert (
            main.main([*FINETUNE, f"--config.init={runs / 'base'}", "--config.method=tuning.scl_ft", f"--workdir={begun}"])
            == 2
        )
        assert "another model" in capsys.readouterr().err
    finally:
        shutil.rmtree(runs / "base")
        kept.rename(runs / "base")


def test_a_sweep_knows_its_network_and_counts_divergence_as_zero(runs, tmp_path):
    here = Run(tmp_path)
    budget = program.Budget(steps=4, rounds=2, batch_size=16)
    benches = [
        few_shot.Bench(here, Init(str(runs / name)), few_shot.FewLabels(), Search(), budget) for name in ("base", "other")
    ]
    for bench in benches:
        wild = bench.cell("tuning.bitfit", layer=None, shots=2, seed=0, lr=1e30, weight_decay=0.0)
        assert wild["diverged"]
        assert wild["val"] == 0
    assert len(list((tmp_path / "cells").iterdir())) == 2  # nothing of the first network's was taken for the second
    with pytest.raises(UserError, match="100000 training images per class"):
        benches[0].subsets.get(100_000, 0)


def test_another_base_is_refused_by_name(runs, capsys):
    with pytest.raises(UserError, match=r"tuned from .*base .*but .*other is another one"):
        load(Init(str(runs / "scl"), base=str(runs / "other")))
    moved = runs / "moved"
    (runs / "base").rename(moved)
    try:
        with pytest.raises(UserError, match=r"base=\.\.\."):
            load(Init(str(runs / "scl")))
        load(Init(str(runs / "scl"), base=str(moved)))
        assert delta.main([str(runs / "scl"), str(runs / "x.safetensors")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    finally:
        moved.rename(runs / "base")


def test_bad_files_are_one_line(runs, tmp_path, capsys):
    whole = (runs / "scl" / delta.NAME).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "model.pth").write_bytes(b"")
    for name, words in (
        ("cut.safetensors", "damaged"),
        ("text.safetensors", "damaged"),
        ("model.pth", "damaged"),
        ("absent.safetensors", "no file"),
    ):
        with pytest.raises(UserError, match=words):
            load(Init(str(tmp_path / name)))
    for out in ("x.npz", "nowhere/x.safetensors"):
        assert delta.main([str(runs / "scl"), str(tmp_path / out)]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_one_block_of_a_resnet18_is_a_tenth_of_it(tmp_path):
    model = resnet18(10)
    variables = jax.tree.map(
        lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(lambda: model.init(jax.random.key(0), (32, 32, 3)))
    )
    mine = card.Card("models.resnet.resnet18", 0, (32, 32, 3), tuple("abcdefghij"))
    sizes = {}
    for method in ("scl_ft", "full_ft"):
        plan = plans.plan_of(f"tuning.{method}", Network(mine, model, variables), plans.Target(10, jax.random.key(0)))
        sizes[method] = delta.write(tmp_path / f"{method}.safetensors", mine, plan.variables, plans.frozen_paths(plan))
    assert sizes["scl_ft"] < 0.1 * sizes["full_ft"]


def torch_names(variables):
    """A ResNet's variables under torchvision's names and layout."""
    out = {}
    for path, x in trees.paths(variables).items():
        _, block, module, leaf = path.split("/")
        module = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1", "linear": "fc"}.get(module, module)
        block = "" if block in ("stem", "head") else f"{block}."
        leaf = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}.get(leaf, leaf)
        x = np.asarray(x)
        out[f"{block}{module}.{leaf}"] = x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T
    return out


@pytest.mark.parametrize(
    ("name", "model", "side"),
    [("models.resnet.resnet8", resnet8(7), 32), ("models.resnet.resnet18(width=8, stem=imagenet)", None, 224)],
)
def test_foreign_weights_load_exactly_or_not_at_all(name, model, side, tmp_path):
    model = model or resnet18(7, width=8, stem="imagenet")
    variables = jax.jit(model.init, static_argnums=1)(jax.random.key(3), (side, side, 3))
    arrays = {**torch_names(variables), "bn1.num_batches_tracked": np.int64(5)}
    np.savez(tmp_path / "w.npz", **arrays)
    found, _, loaded = load(Init(str(tmp_path / "w.npz")))
    assert found.model.startswith(name.partition("(")[0])
    assert trees.digest(loaded) == trees.digest(variables)
    assert found.image_shape == (side, side, 3)
    assert found.mean == weights.IMAGENET_MEAN
    changes = (
        (lambda a: a.pop("layer1.0.bn1.weight"), "1 missing: layer1.0.bn1.weight"),
        (lambda a: a.update({"layer9.0.conv1.weight": np.zeros((1, 1, 3, 3))}), "1 unexpected: layer9.0.conv1.weight"),
        (lambda a: a.update({"conv1.weight": np.zeros((5, 3, 3, 3))}), "1 misshaped: conv1.weight"),
        (lambda a: a.pop("fc.bias"), "1 missing: fc.bias"),
        (lambda a: a.pop("fc.weight"), "1 missing: fc.weight"),
    )
    for change, words in changes:
        broken = dict(arrays)
        change(broken)
        np.savez(tmp_path / "broken.npz", **broken)
        with pytest.raises(UserError, match=words):
            load(Init(str(tmp_path / "broken.npz"), model=name))


def test_results_say_what_was_saved(runs):
    results = json.loads((runs / "scl" / "results.json").read_text())["results"]
    assert results["delta_bytes"] == (runs / "scl" / delta.NAME).stat().st_size
    assert results["cache"]["start"] == results["layer"] == "layer3.0"
