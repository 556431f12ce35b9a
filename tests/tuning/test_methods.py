"""Fine-tuning: frozen means bit-identical and free, and every method is what it says."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ncjax import data, optim
from ncjax.core import mesh, trees
from ncjax.core.errors import UserError
from ncjax.core.resolve import public_names
from ncjax.core.types import Network
from ncjax.features import passes
from ncjax.losses import cross_entropy
from ncjax.models.resnet import resnet14
from ncjax.models.vit import vit_ti
from ncjax.training import loop
from ncjax.transfer import logistic, prefix, probe
from ncjax.tuning import methods, plans
from ncjax.tuning.plans import Target

METHODS = public_names(methods)
KEY = jax.random.key(0)


@pytest.fixture(scope="module", params=["resnet", "vit"])
def base(request):
    model = resnet14(7, width=4) if request.param == "resnet" else vit_ti(7, patch=4, depth=2)
    variables = jax.jit(model.init, static_argnums=1)(KEY, (8, 8, 1))
    return Network(SimpleNamespace(image_shape=(8, 8, 1)), model, variables)


def plan_of(base, method, layer=None, **settings):
    layer = layer or (base.model.backbone[-3] if method in ("layer_ft", "layer_ft_scaled", "scl_ft", "surgical") else None)
    return getattr(methods, method)(base, Target(3, KEY, layer), **settings)


def prepare(plan, npz, **options):
    dataset, devices = data.load(data.Data(f"npz:{npz}")), mesh.make()
    source = data.batches_of(dataset.splits["train"], dataset, devices, batch_size=20)  # 54 examples: the last is ragged
    tx, _ = optim.build(optim.Optim(lr=0.1, clip=1.0, **options), plan.mask, source.steps, 1, plan.factors, plan.anchored)
    state = loop.init_state(plan.variables, tx, plan.mask, KEY, devices)
    step = loop.make_step(plan.model.apply, cross_entropy(), tx, plan.mask, plan.live, devices, ragged=source.ragged)
    fetch = loop.make_fetch(source, devices)
    batches = [fetch(state, source.arrays, item) for item in source.items(np.arange(source.size))]
    return state, step, batches


@pytest.mark.parametrize("method", METHODS)
def test_only_the_tuned_leaves_move(base, method, npz):
    plan = plan_of(base, method)
    state, step, batches = prepare(plan, npz)
    before = trees.paths(jax.tree.map(np.asarray, state.variables))
    for batch in batches:
        state, loss = step(state, batch)
    assert np.isfinite(float(loss))
    after, frozen = trees.paths(state.variables), plans.frozen_paths(plan)
    moved = {path: not np.array_equal(x, after[path]) for path, x in before.items()}
    assert not [path for path in moved if moved[path] and f"variables/{path}" in frozen]
    still = [path for path in moved if not moved[path] and f"variables/{path}" not in frozen]
    # The first gradient of LoRA's A is zero because its B starts there; a key's bias moves no attention score.
    assert all(path.endswith("key/bias") for path in still), still
    assert {path.split("/")[1] for path in moved if moved[path] and path.startswith("params/")} == set(plan.tuned)


@pytest.mark.parametrize("method", METHODS)
def test_shares_and_match_table_agree(base, method):
    plan = plan_of(base, method)
    tuned, total = plan.share()
    lines = plans.match_table(plan).splitlines()
    assert [line.split()[0] for line in lines] == list(plan.model.blocks)
    numbers = [[int(word.replace(",", "")) for word in line.split() if word.replace(",", "").isdigit()] for line in lines]
    assert (sum(n[0] for n in numbers), sum(n[1] for n in numbers)) == (tuned, total)
    assert {line.split()[0] for line in lines if line.split()[1] != "frozen"} == set(plan.tuned)


@pytest.mark.parametrize("method", ["full_ft", "lora", "spectral", "scl_ft", "lp_ft", "llrd", "l2_sp"])
def test_tuning_starts_at_the_model_itself(base, method):
    _, model, variables = base
    images = jax.random.normal(KEY, (4, 8, 8, 1))
    plan = plan_of(base, method)
    wanted, _ = model.apply(variables, images)
    found, _ = plan.model.apply(plan.variables, images)
    for layer in model.backbone:
        np.testing.assert_array_equal(found[layer], wanted[layer])


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
        state, step, batches = prepare(plan_of(base, method), npz)
        flops[method] = step.lower(state, batches[0]).compile().cost_analysis()["flops"]
    # A backward pass over everything costs twice the forward one; tuning less must show.
    assert flops["probe"] < flops["layer_ft"] < flops["full_ft"]
    assert flops["probe"] < 0.45 * flops["full_ft"]


def test_a_norm_over_all_leaves_would_be_seen(base, npz):
    """The check above can fail: with the gradient of every leaf asked for, tuning one block saves little."""
    plan = plan_of(base, "layer_ft", layer=base.model.backbone[-2])
    state, step, batches = prepare(plan, npz)

    def logged(params, batch):
        def objective(params):
            found, _ = plan.model.apply({**plan.variables, "params": params}, batch.image, live=plan.live, key=KEY)
            return cross_entropy().value(found, batch.label, batch.mask)

        return optax.tree.norm(jax.grad(objective)(params))

    naive = jax.jit(logged).lower(plan.variables["params"], batches[0]).compile().cost_analysis()["flops"]
    assert step.lower(state, batches[0]).compile().cost_analysis()["flops"] < 0.8 * naive


@pytest.mark.parametrize("method", ["layer_ft", "scl_ft", "last_k"])
def test_a_kept_prefix_trains_the_same_and_cheaper(base, method, npz):
    plan = plan_of(base, method)
    dataset, devices = data.load(data.Data(f"npz:{npz}")), mesh.make()
    kept = prefix.build(plan.model, plan.variables, dataset, devices, start=plan.start, batch_size=16)
    assert kept.model.blocks == plan.model.blocks[plan.model.blocks.index(plan.start) :]
    ends, flops = [], []
    for model, whole in ((plan.model, dataset), (kept.model, kept.dataset)):
        source = data.batches_of(whole.splits["train"], whole, devices, batch_size=20)
        tx, _ = optim.build(optim.Optim(lr=0.1), plan.mask, source.steps, 1)
        state = loop.init_state(plan.variables, tx, plan.mask, KEY, devices)
        step = loop.make_step(model.apply, cross_entropy(), tx, plan.mask, plan.live, devices, ragged=source.ragged)
        fetch = loop.make_fetch(source, devices)
        for item in source.items(np.arange(source.size)):
            batch = fetch(state, source.arrays, item)
            state, _ = step(state, batch)
        ends.append(jax.tree.map(np.asarray, state.variables))
        flops.append(step.lower(state, batch).compile().cost_analysis()["flops"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), *ends)
    assert flops[1] < flops[0]


@pytest.mark.parametrize("where", ["host", "disk"])
def test_activations_may_be_kept_off_the_device(base, where, npz, tmp_path):
    plan = plan_of(base, "scl_ft")
    dataset, devices = data.load(data.Data(f"npz:{npz}")), mesh.make()
    wanted = prefix.build(plan.model, plan.variables, dataset, devices, start=plan.start, batch_size=16, where="device")
    kept = prefix.build(
        plan.model,
        plan.variables,
        dataset,
        devices,
        start=plan.start,
        batch_size=16,
        where=where,
        dtype="bfloat16",
        folder=tmp_path,
    )
    assert (wanted.where, kept.where, 2 * kept.nbytes) == ("device", where, wanted.nbytes)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.npz"]  # nothing that a killed process would leave behind
    for name, split in kept.dataset.splits.items():
        exact = np.asarray(wanted.dataset.splits[name].images)
        found = np.concatenate(
            [
                np.asarray(b.image)[np.asarray(b.mask) > 0]
                for b in passes.evaluation_batches(data.batches_of(split, kept.dataset, devices, batch_size=20))
            ]
        )
        np.testing.assert_allclose(found, exact, rtol=2**-8, atol=1e-6)
        assert np.any(found != exact)


def test_kept_views_are_those_of_the_augmentation(base, npz):
    def darken(key, images):
        return images // 2

    plan = plan_of(base, "layer_ft")
    dataset, devices = data.load(data.Data(f"npz:{npz}")), mesh.make()
    kept = prefix.build(
        plan.model, plan.variables, dataset, devices, start=plan.start, batch_size=20, views=2, augment=darken
    )
    images = darken(None, dataset.splits["train"].images).astype(np.float32) / 255
    images = (images - np.float32(dataset.mean)) / np.float32(dataset.std)
    wanted = plan.model.apply(plan.variables, images, stop=plan.start)[0]["carry"]
    assert kept.views.images.shape == (54, 2, *wanted.shape[1:])
    for view in range(2):
        np.testing.assert_allclose(kept.views.images[:, view], wanted, rtol=1e-4, atol=1e-5)
    drawn = prefix.pick_view(KEY, jnp.arange(40).reshape(20, 2))
    assert (drawn // 2 == jnp.arange(20)).all()
    assert 0 < int(jnp.sum(drawn % 2)) < 20


def test_batch_norm_policies(base, npz):
    _, model, variables = base
    dataset, devices = data.load(data.Data(f"npz:{npz}")), mesh.make()
    source = data.batches_of(dataset.splits["train"], dataset, devices, batch_size=20)
    plan = plan_of(base, "layer_ft")
    key_layer = plan.tuned[0]

    def statistics_moved(plan):
        state, step, batches = prepare(plan, npz)
        before = jax.tree.map(np.asarray, state.variables["batch_stats"])
        for batch in batches:
            state, _ = step(state, batch)
        return {
            block
            for block, tree in before.items()
            if any(
                not np.array_equal(a, b)
                for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(state.variables["batch_stats"][block]), strict=True)
            )
        }

    normed = set(variables["batch_stats"])
    assert statistics_moved(plans.with_batch_norm(plan, "freeze")) == normed & {key_layer}
    updated = plans.with_batch_norm(plan, "update")
    assert statistics_moved(updated) == normed
    assert updated.start == model.blocks[0]  # nothing below may be kept
    with pytest.raises(UserError, match="reestimate"):
        plans.with_batch_norm(plan, "eval")

    again = passes.reestimate(plan.model, plan.variables, source, devices)
    assert jax.tree.all(jax.tree.map(np.array_equal, again["params"], plan.variables["params"]))
    if normed:
        images = (dataset.splits["train"].images / np.float32(255) - np.float32(dataset.mean)) / np.float32(dataset.std)
        kernel = variables["params"]["stem"]["conv1"]["kernel"]
        x = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        np.testing.assert_allclose(again["batch_stats"]["stem"]["bn1"]["mean"], x.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(again["batch_stats"]["stem"]["bn1"]["var"], x.var((0, 1, 2)), rtol=1e-4)


def test_methods_read_what_they_say(base):
    model, variables, dims = base.model, base.variables, base.widths()
    layer, images = model.backbone[-3], jax.random.normal(KEY, (4, 8, 8, 1))
    plain, _ = model.apply(variables, images)

    def read(method, **settings):
        plan = plan_of(base, method, **settings)
        return plan.model.apply(plan.variables, images)[0]["embedding"]

    for method in ("probe", "layer_ft", "full_ft"):
        np.testing.assert_array_equal(read(method), plain["penultimate"])
    np.testing.assert_array_equal(read("layer_ft_scaled"), 2 * plain["penultimate"])
    width = max(dims[layer], dims[model.penultimate])
    padded = jnp.pad(plain[layer], ((0, 0), (0, width - dims[layer])))
    np.testing.assert_allclose(read("scl_ft"), plain["penultimate"] + padded, rtol=1e-6)
    both = jnp.concatenate([plain["penultimate"], plain[layer]], axis=1)
    np.testing.assert_array_equal(read("scl_ft", skip="concat"), both)
    np.testing.assert_array_equal(read("scl_ft", skip="linear"), plain["penultimate"])  # its map starts at zero
    np.testing.assert_array_equal(read("head2toe"), jnp.concatenate([plain[b] for b in model.backbone], axis=1))
    with pytest.raises(UserError, match="ablations"):
        plan_of(base, "scl_ft", skip="sum")


def test_the_skip_adds_no_parameter_and_doubles_the_last_block(base):
    model, dims = base.model, base.widths()
    plain = plan_of(base, "layer_ft").share()
    assert plan_of(base, "scl_ft").share() == plain
    inner, outer = dims[model.backbone[-3]], dims[model.penultimate]
    assert plan_of(base, "scl_ft", skip="concat").share()[0] == plain[0] + 3 * inner
    assert plan_of(base, "scl_ft", skip="linear").share()[0] == plain[0] + inner * outer
    last = plan_of(base, "scl_ft", layer=model.penultimate)
    features_, _ = last.model.apply(last.variables, jax.random.normal(KEY, (4, 8, 8, 1)))
    np.testing.assert_array_equal(features_["readout"], 2 * features_["penultimate"])


def test_lora_is_a_low_rank_change_of_the_kernel(base):
    plan = plan_of(base, "lora", rank=2, alpha=6.0)
    params = jax.tree.map(lambda x: x + 0.1, plan.variables["params"])
    merged = plan.merge(params)
    block = plan.model.backbone[1]
    first = next(p for p, x in trees.paths(params[block]).items() if p.endswith("/kernel") and np.ndim(x) in (2, 4))
    module = first.split("/")[0]
    kernel, change = params[block][module]["kernel"], params[block][module]
    wanted = kernel.reshape(-1, kernel.shape[-1]) + 3.0 * change["lora_a"] @ change["lora_b"]
    np.testing.assert_allclose(merged[block][module]["kernel"].reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-6)
    assert not [p for p in trees.paths(merged) if "lora" in p]
    assert plan.share()[0] < plan_of(base, "full_ft").share()[0]
    with pytest.raises(UserError, match="at least 1"):
        plan_of(base, "lora", rank=0)


def test_spectral_begins_in_the_kernels_leading_directions(base):
    plan, outer = plan_of(base, "spectral", rank=2, outer=4.0), 4.0
    block = plan.model.backbone[1]
    first = next(
        p
        for p, x in trees.paths(plan.variables["params"][block]).items()
        if p.endswith("/spectral_c") and p.count("/") == 1
    )
    module = first.split("/")[0]
    leaves = plan.variables["params"][block][module]
    a, b, c = (np.asarray(leaves[f"spectral_{x}"], np.float64) for x in "abc")
    kernel = np.asarray(leaves["kernel"], np.float64).reshape(len(a), -1)
    np.testing.assert_allclose(outer * a.T @ a, np.eye(2), atol=1e-5)
    top = np.linalg.svd(kernel, compute_uv=False)[:2]
    np.testing.assert_allclose(np.abs(outer * a.T @ kernel @ b.T), np.diag(top), atol=1e-4 * top[0])
    assert not c.any()

    # One step of gradient descent on the leaves moves A = sqrt(outer) a by outer times the step of C.
    def merged(a, b, c):
        tree = {**leaves, "spectral_a": a, "spectral_b": b, "spectral_c": c}
        params = {**plan.variables["params"], block: {**plan.variables["params"][block], module: tree}}
        return plan.merge(params)[block][module]["kernel"].reshape(kernel.shape)

    c = jnp.asarray([[0.3, 0.1], [-0.2, 0.5]])
    full_a, full_b = 2.0 * a, 2.0 * b
    np.testing.assert_allclose(merged(a, b, c), kernel + full_a @ c @ full_b, rtol=1e-5, atol=1e-6)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=kernel.shape), jnp.float32)
    step_a, step_c = jax.grad(lambda a, c: jnp.sum(weights * merged(a, b, c)), (0, 1))(jnp.asarray(a, jnp.float32), c)
    np.testing.assert_allclose(2.0 * step_a, outer * weights @ (c @ full_b).T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(step_c, full_a.T @ weights @ full_b.T, rtol=1e-4, atol=1e-5)
    lora = plan_of(base, "lora", rank=2)
    kernels = sum(1 for p in trees.paths(lora.variables["params"]) if p.endswith("/lora_a"))
    assert lora.share()[0] < plan.share()[0] <= lora.share()[0] + 4 * kernels


def test_layerwise_decay_and_l2_sp(base, npz):
    plan = plan_of(base, "llrd", factor=0.5)
    assert plan.factors["head"] == 1
    assert plan.factors[plan.model.backbone[-2]] == 0.25
    state, _, _ = prepare(plan, npz)
    params = state.variables["params"]
    ones = jax.tree.map(jnp.ones_like, params)

    def first_update(plan, gradient, params, **options):
        settings = optim.Optim(lr=1.0, schedule="optim.constant", **options)
        tx, _ = optim.build(settings, plan.mask, 10, 1, plan.factors, plan.anchored)
        return tx.update(gradient, tx.init(plan.variables["params"]), params)[0]

    updates = first_update(plan, ones, params, weight_decay=0.0)
    for block in plan.model.blocks:
        for x in jax.tree.leaves(updates[block]):
            np.testing.assert_allclose(x, -plan.factors[block], rtol=1e-6)
    anchored = plan_of(base, "l2_sp")
    moved = jax.tree.map(lambda x: x + 0.5, anchored.variables["params"])
    updates = first_update(anchored, jax.tree.map(jnp.zeros_like, moved), moved, weight_decay=0.1)
    for block in anchored.model.backbone:
        for x in jax.tree.leaves(updates[block]):
            np.testing.assert_allclose(x, -0.05, rtol=1e-3)  # towards the start
    np.testing.assert_allclose(updates["head"]["linear"]["kernel"], -0.1 * moved["head"]["linear"]["kernel"], rtol=1e-5)


def test_a_grid_of_hyperparameters_is_one_program():
    params = {"a": {"kernel": jnp.ones((2, 2))}}
    settings = optim.Optim(lr=0.1, weight_decay=0.0, schedule="optim.constant")
    tx, _ = optim.build(settings, trees.block_mask(params, ["a"]), 10, 1)
    update = jax.jit(tx.update)
    for lr, decay in ((0.1, 0.0), (0.3, 0.5)):
        state = optim.with_hyperparameters(tx.init(params), lr=lr, weight_decay=decay)
        found, _ = update(jax.tree.map(jnp.ones_like, params), state, params)
        np.testing.assert_allclose(found["a"]["kernel"], -lr * (1 + decay), rtol=1e-6)
    assert update._cache_size() == 1


def test_methods_refuse_what_they_cannot_do(base):
    model = base.model
    for method, settings, message in (
        ("last_k", {"k": 99}, "blocks"),
        ("llrd", {"factor": 0.0}, "in"),
        ("surgical", {"layer": "*"}, "one stage"),
    ):
        with pytest.raises(UserError, match=message):
            plan_of(base, method, **settings)
    assert plans.stage(resnet14(3), "layer2.1") == ("layer2.0", "layer2.1")
    assert plans.stage(vit_ti(3, depth=8), "blocks.5") == ("blocks.4", "blocks.5")
    assert plan_of(base, "last_k", k=1).tuned == (model.penultimate, "head")


def test_blocks_are_matched_by_name_glob_and_regex():
    names = resnet14(3).backbone
    assert trees.match("layer3.0", names) == ("layer3.0",)
    assert trees.match("layer3.*, stem", names) == ("stem", "layer3.0", "layer3.1")
    assert trees.match(r"re:layer[12]\.1", names) == ("layer1.1", "layer2.1")
    for pattern in ("layer4.0", "layer3.0,nothing", "re:[", "re:x", "layer3.*,layer3.0", "stem,stem"):
        with pytest.raises(UserError):
            trees.match(pattern, names)
    with pytest.raises(UserError, match=r"'layer3\.\*' and 'layer\?\.1' overlap"):
        trees.match("layer3.*, layer?.1", names)
    with pytest.raises(UserError, match="one key layer"):
        plan_of(Network(None, resnet14(3), None), "scl_ft", layer="layer3.*")


def test_weight_decay_reaches_what_the_mask_says():
    params = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    mask = trees.block_mask(params, ["a"])
    zero = jax.tree.map(jnp.zeros_like, params)
    for decay, expected in (("optim.kernels", 0.0), ("optim.everything", -0.01)):
        tx, _ = optim.build(optim.Optim(lr=0.1, weight_decay=0.1, decay=decay, schedule="optim.constant"), mask, 10, 1)
        updates, _ = tx.update(zero, tx.init(params), params)
        assert float(updates["a"]["kernel"][0, 0]) == pytest.approx(-0.01)
        assert float(updates["a"]["bias"][0]) == pytest.approx(expected)


def test_schedules():
    mask = {"a": True}
    _, lr = optim.build(optim.Optim(lr=1.0, warmup_epochs=1.0), mask, 10, 10)
    assert [float(lr(s)) for s in (0, 4, 9, 10)] == pytest.approx([1 / 11, 5 / 11, 10 / 11, 1.0])
    assert float(lr(55)) == pytest.approx(0.5)
    assert float(lr(100)) == pytest.approx(0, abs=1e-6)
    _, lr = optim.build(optim.Optim(lr=1.0, schedule="optim.step(factor=0.1)"), mask, 10, 10)
    assert [float(lr(s)) for s in (0, 60, 99)] == pytest.approx([1, 0.1, 0.01])
    for bad in (dict(lr=0.0), dict(warmup_epochs=11.0), dict(optimizer="optim.adan")):
        with pytest.raises(UserError):
            optim.build(optim.Optim(**bad), mask, 10, 10)


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


@pytest.mark.parametrize(
    ("accuracy", "chosen", "at_end"),
    [
        (lambda l2: -abs(np.log10(l2) - 2), 100, False),  # best at 100
        (lambda l2: np.log10(l2), 1000, True),  # the stronger the better
        (lambda l2: min(np.log10(l2), -1) + (l2 > 50), 100, False),  # over a plateau
        (lambda l2: 0.5, 0.1, False),  # all alike: where the path begins
        (lambda l2: -abs(np.log10(l2) + 5), 1e-5, False),
        (lambda l2: -np.log10(l2), 1e-7, True),
        (lambda l2: -abs(np.log10(l2) + 2), 0.01, False),  # within the path
    ],
)
def test_a_path_of_strengths_widens_where_its_best_is_an_end(rng, monkeypatch, accuracy, chosen, at_end):
    data = rng.normal(size=(12, 3)).astype(np.float32), np.arange(12) % 2
    made = probe._probe
    monkeypatch.setattr(
        probe, "_probe", lambda found, l2, **rest: made(found, l2, **rest)._replace(val_accuracy=accuracy(l2))
    )
    found = probe.fit(data, data, 2)
    assert found.l2 == pytest.approx(chosen)
    assert found.at_end == at_end
    assert found.steps > 0


def test_probe_chooses_by_validation(rng):
    x, y = rng.normal(size=(60, 20)).astype(np.float32), rng.integers(0, 3, 60)
    fitted = probe.fit((x[:40], y[:40]), (x[40:], y[40:]), 3)
    mean, std = x[:40].mean(0), x[:40].std(0) + 1e-6
    path = logistic.solve((x[:40] - mean) / std, y[:40], 3, probe.L2_GRID, tolerance=probe.FIT_TOLERANCE)
    held_out = np.concatenate([(x[40:] - mean) / std, np.ones((20, 1), np.float32)], axis=1)
    scores = [np.mean(np.argmax(held_out @ np.asarray(s.params).T, axis=1) == y[40:]) for s in path]
    assert fitted.val_accuracy >= max(scores)
    if 0 < np.argmax(scores) < len(scores) - 1:
        assert fitted.l2 == probe.L2_GRID[int(np.argmax(scores))]  # the strongest of equals
    assert min(scores) < max(scores)
