"""Fine-tuning: frozen means bit-identical and free, and the four methods are what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax import data, features, mesh, optim, probe, train, trees, tuning
from ncjax.lookup import public_names
from ncjax.losses import cross_entropy
from ncjax.models.resnet import resnet14
from ncjax.models.vit import vit_ti
from ncjax.types import UserError

METHODS = ["probe", "layer_ft", "layer_ft_scaled", "scl_ft", "full_ft"]
KEY = jax.random.key(0)


@pytest.fixture(scope="module", params=["resnet", "vit"])
def base(request):
    model = resnet14(7, width=4) if request.param == "resnet" else vit_ti(7, patch=4, depth=2)
    variables = jax.jit(model.init, static_argnums=1)(KEY, (8, 8, 1))
    return model, variables, features.widths(model, variables, (8, 8, 1))


def plan_of(base, method, layer=None):
    model, variables, dims = base
    layer = layer or model.backbone[-3]
    return getattr(tuning, method)(model, variables, 3, KEY, layer=layer, dims=dims)


def test_the_methods_are_all_covered():
    assert set(METHODS) <= set(public_names(tuning))


def prepare(plan, npz, **options):
    dataset, devices = data.load(f"npz:{npz}"), mesh.make()
    source = data.source(dataset.splits["train"], dataset, devices, batch_size=20)  # 54 examples: the last is ragged
    tx, _ = optim.build(plan.mask, source.steps, 1, lr=0.1, clip=1.0, **options)
    state = train.init_state(plan.variables, tx, plan.mask, KEY, devices)
    step = train.make_step(plan.model.apply, cross_entropy(), tx, plan.mask, plan.live, source, devices)
    return state, step, source


@pytest.mark.parametrize("method", METHODS)
def test_only_the_tuned_blocks_move(base, method, npz):
    plan = plan_of(base, method)
    state, step, source = prepare(plan, npz)
    before = jax.tree.map(np.asarray, state.variables)
    for item in source.items(np.arange(source.size)):
        state, loss = step(state, source.arrays, item)
    assert np.isfinite(float(loss))
    for kind, blocks in before.items():
        for block, leaves in blocks.items():
            same = [np.array_equal(a, b) for a, b in zip(
                jax.tree.leaves(leaves), jax.tree.leaves(state.variables[kind][block]), strict=True)]
            assert (not all(same)) if block in plan.tuned else all(same), (kind, block)


@pytest.mark.parametrize("optimizer", ["optim.sgd", "optim.adamw"])
def test_optimizer_state_holds_nothing_for_frozen_leaves(base, optimizer, npz):
    plan = plan_of(base, "layer_ft")
    state, _, _ = prepare(plan, npz, optimizer=optimizer)
    moments = {"optim.sgd": 1, "optim.adamw": 2}[optimizer]
    scalars = sum(1 for x in jax.tree.leaves(state.opt_state) if np.ndim(x) == 0)
    assert trees.count(state.opt_state) - scalars == moments * plan.share()[0]


def test_frozen_weights_cost_no_gradient(base, npz):
    flops = {}
    for method in ("probe", "layer_ft", "full_ft"):
        state, step, source = prepare(plan_of(base, method), npz)
        item = next(source.items(np.arange(source.size)))
        flops[method] = step.lower(state, source.arrays, item).compile().cost_analysis()["flops"]
    # A backward pass over everything costs twice the forward one; tuning less must show.
    assert flops["probe"] < flops["layer_ft"] < flops["full_ft"]
    assert flops["probe"] < 0.45 * flops["full_ft"]


def test_methods_read_what_they_say(base):
    model, variables, dims = base
    layer, images = model.backbone[-3], jax.random.normal(KEY, (4, 8, 8, 1))
    plain, _ = model.apply(variables, images)
    read = {m: plan_of(base, m).model.apply(plan_of(base, m).variables, images)[0] for m in METHODS}
    for method in ("probe", "layer_ft", "full_ft"):
        np.testing.assert_array_equal(read[method]["embedding"], plain["penultimate"])
    np.testing.assert_array_equal(read["layer_ft_scaled"]["readout"], 2 * plain["penultimate"])
    width = max(dims[layer], dims[model.penultimate])
    padded = jnp.pad(plain[layer], ((0, 0), (0, width - dims[layer])))
    np.testing.assert_allclose(read["scl_ft"]["readout"], plain["penultimate"] + padded, rtol=1e-6)


def test_the_skip_adds_no_parameter_and_doubles_the_last_block(base):
    model = base[0]
    assert plan_of(base, "scl_ft").share() == plan_of(base, "layer_ft").share()
    last = plan_of(base, "scl_ft", layer=model.penultimate)
    features_, _ = last.model.apply(last.variables, jax.random.normal(KEY, (4, 8, 8, 1)))
    np.testing.assert_array_equal(features_["readout"], 2 * features_["penultimate"])


def test_blocks_are_matched_by_name_glob_and_regex():
    names = resnet14(3).backbone
    assert trees.match("layer3.0", names) == ("layer3.0",)
    assert trees.match("layer3.*, stem", names) == ("stem", "layer3.0", "layer3.1")
    assert trees.match(r"re:layer[12]\.1", names) == ("layer1.1", "layer2.1")
    for pattern in ("layer4.0", "layer3.0,nothing", "re:[", "re:x"):
        with pytest.raises(UserError):
            trees.match(pattern, names)
    with pytest.raises(UserError, match="one key layer"):
        plan_of((resnet14(3), None, {}), "scl_ft", layer="layer3.*")


def test_weight_decay_reaches_what_the_mask_says():
    params = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    mask = trees.block_mask(params, ["a"])
    zero = jax.tree.map(jnp.zeros_like, params)
    for decay, expected in (("optim.kernels", 0.0), ("optim.everything", -0.01)):
        tx, _ = optim.build(mask, 10, 1, lr=0.1, weight_decay=0.1, decay=decay, schedule="optim.constant")
        updates, _ = tx.update(zero, tx.init(params), params)
        assert float(updates["a"]["kernel"][0, 0]) == pytest.approx(-0.01)
        assert float(updates["a"]["bias"][0]) == pytest.approx(expected)


def test_schedules():
    mask = {"a": True}
    _, lr = optim.build(mask, 10, 10, lr=1.0, warmup_epochs=1.0)
    assert [float(lr(s)) for s in (0, 5, 10)] == pytest.approx([0, 0.5, 1.0])
    assert float(lr(55)) == pytest.approx(0.5)
    assert float(lr(100)) == pytest.approx(0, abs=1e-6)
    _, lr = optim.build(mask, 10, 10, lr=1.0, schedule="optim.step(factor=0.1)")
    assert [float(lr(s)) for s in (0, 60, 99)] == pytest.approx([1, 0.1, 0.01])
    for bad in (dict(lr=0.0), dict(warmup_epochs=11.0), dict(optimizer="optim.adan")):
        with pytest.raises(UserError):
            optim.build(mask, 10, 10, **bad)


def test_probe_solves_the_problem_it_states(rng):
    from sklearn.linear_model import LogisticRegression

    x = rng.normal(size=(300, 10)).astype(np.float32) * np.geomspace(0.1, 10, 10).astype(np.float32) + 3
    y = (x @ rng.normal(size=(10, 3)) + rng.normal(size=(300, 3))).argmax(1)
    fitted = probe.fit((x, y), None, 3, l2_grid=(0.01,), max_steps=1000)
    scaled = (x - x.mean(0)) / (x.std(0) + 1e-6)
    theirs = LogisticRegression(C=1 / (0.01 * 300), tol=1e-8, max_iter=5000).fit(scaled, y)

    def objective(weight, bias):
        logits = scaled @ weight.T + bias
        own = logits[np.arange(300), y] - np.log(np.exp(logits).sum(1))
        return -own.mean() + 0.005 * np.square(weight).sum()

    ours = objective(fitted.weight * (x.std(0) + 1e-6), fitted.bias + fitted.weight @ x.mean(0))
    assert ours == pytest.approx(objective(theirs.coef_, theirs.intercept_), rel=1e-4)
    assert fitted.train_accuracy == pytest.approx(theirs.score(scaled, y), abs=0.01)


def test_probe_chooses_by_validation(rng):
    x, y = rng.normal(size=(60, 20)).astype(np.float32), rng.integers(0, 3, 60)
    fitted = probe.fit((x[:40], y[:40]), (x[40:], y[40:]), 3)
    alone = {l2: probe.fit((x[:40], y[:40]), None, 3, l2_grid=(l2,)) for l2 in probe.L2_GRID}
    scores = {l2: probe.accuracy(p.weight, p.bias, x[40:], y[40:]) for l2, p in alone.items()}
    assert fitted.val_accuracy >= max(scores.values()) - 0.101
    assert fitted.l2 in probe.L2_GRID
