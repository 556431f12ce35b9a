"""Toy models: their parts against closed forms, and all of them in miniature."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax import main
from ncjax.core.errors import UserError
from ncjax.losses.etf import simplex_etf, sparse_etf
from ncjax.studies.theory import (
    canvas,
    checks,
    clients,
    cnn,
    deep_model,
    fixed_etf,
    imbalance_network,
    linear,
    mlp,
    pick_all_label,
    rounds,
    sessions,
    solver,
)

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "theory"


def test_the_strongly_regular_graph_gives_the_identity():
    for r in (4, 5, 6, 7):
        b = deep_model.incidence(r)
        k = r * (r - 1) // 2
        before = b.T @ b - 1
        np.testing.assert_array_equal(np.maximum(before, 0), np.eye(k))
        assert np.linalg.matrix_rank(before) == (3 if r == 4 else r)
        params = [jnp.asarray(x) for x in deep_model.graph_start(r, 4, max(2 * r, k))]
        out = np.asarray(deep_model.layers_of(params)[-1])
        np.testing.assert_allclose(out, np.eye(k), atol=1e-6)


def test_deep_collapse_is_the_loss_of_orthogonal_layers():
    """s of each of K directions, shared by L + 1 factors, and the square loss of s beside 1."""
    k, depth, decay = 4, 3, 0.004
    best = deep_model.collapsed_loss(k, depth, decay)
    for s in (0.8, 0.9, 0.95, 1.0):
        factor = s ** (1 / (depth + 1)) * np.eye(k)
        assert float(deep_model.objective([jnp.asarray(factor)] * (depth + 1), decay)) >= best - 1e-6
    assert deep_model.collapsed_loss(10, 4, 0.004) == pytest.approx(0.09918, abs=1e-5)


def test_pick_all_label_is_a_sum_of_cross_entropies(rng):
    z, tags = rng.normal(size=(5, 4)), (rng.random((5, 4)) < 0.5).astype(float)
    tags[:, 0] = 1
    log_p = np.log(np.exp(z) / np.exp(z).sum(1, keepdims=True))
    each = -(tags * log_p).sum(1)
    np.testing.assert_allclose(pick_all_label.pick_all_label(jnp.asarray(z), jnp.asarray(tags)), each, rtol=1e-5)
    mean = pick_all_label.pick_all_label(jnp.asarray(z), jnp.asarray(tags), "mean")
    np.testing.assert_allclose(mean, each / tags.sum(1), rtol=1e-5)
    singles = rng.normal(size=(4, 6))
    sums = np.stack([singles[i] + singles[j] for i, j in itertools.combinations(range(4), 2)])
    assert pick_all_label.angle_metric(3 * sums, sums) < 1e-6
    assert pick_all_label.angle_metric(rng.permutation(sums), sums) > 0.3


def test_solvers_find_a_quadratics_minimum(rng):
    a = rng.normal(size=(6, 6))
    a, b = a @ a.T + np.eye(6), rng.normal(size=6)

    @solver.in_double
    def both():
        def loss(p):
            return 0.5 * p["x"] @ jnp.asarray(a) @ p["x"] - jnp.asarray(b) @ p["x"]

        start = {"x": jnp.zeros(6)}
        found, value = jax.jit(lambda p: solver.lbfgs(loss, p, 200))(start)
        slow, seen = solver.descent(loss, start, lr=1 / np.linalg.norm(a, 2), steps=4000, log=loss, every=1000)
        return np.asarray(found["x"]), float(value), np.asarray(slow["x"]), np.asarray(seen)

    found, value, slow, seen = both()
    exact = np.linalg.solve(a, b)
    np.testing.assert_allclose(found, exact, atol=1e-8)
    assert value == pytest.approx(-0.5 * b @ exact)
    np.testing.assert_allclose(slow, exact, atol=1e-4)
    assert len(seen) == 4
    assert seen[0] == 0


def test_measures_of_layers():
    assert linear.equal_values(np.diag([3.0, 1.0, 1.0, 1.0])) == 3
    assert linear.straightness(0.5 ** np.arange(6)) == pytest.approx(1)
    assert linear.straightness(np.array([1.0, 0.2, 0.9, 0.1, 1.1])) < 0.3
    q = np.asarray(linear.orthogonal(jax.random.key(0), 5))
    np.testing.assert_allclose(q @ q.T, np.eye(5), atol=1e-6)
    params = mlp.init(jax.random.key(0), [4, 3, 2])
    x = jnp.ones((1, 4))
    hidden, out = mlp.features(params, x)
    np.testing.assert_allclose(hidden, np.maximum(x @ params[0][0], 0), rtol=1e-6)
    np.testing.assert_allclose(out, hidden @ params[1][0], rtol=1e-6)


def test_heads_want_what_they_say():
    target = jnp.eye(3)
    h, labels, seen = 5 * target, jnp.arange(3), jnp.ones(3)
    for head in ("dot", "flying"):
        assert float(fixed_etf.objective(head, h, target, None, labels, seen)) == pytest.approx(0, abs=1e-6)
        assert float(fixed_etf.objective(head, -h, target, None, labels, seen)) == pytest.approx(20, rel=1e-5)
    both = fixed_etf.objective("etf", h, target, None, labels, seen)
    assert float(both) == pytest.approx(np.log(1 + 2 * np.exp(-10.0)), rel=1e-2)
    only = fixed_etf.objective("learned", h[:2], target, jnp.eye(3), labels[:2], jnp.array([1.0, 1.0, 0.0]))
    assert float(only) == pytest.approx(np.log(1 + np.exp(-5.0)), rel=1e-4)  # the class that has not come is out


def test_a_cut_has_so_many_images_of_each_class(rng):
    y = np.repeat(np.arange(4), 10)
    rows, new = mlp.cut(y, [10, 10, 3, 2], rng)
    assert sorted(new) == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.bincount(new[y[rows]]), [10, 10, 3, 2])
    assert len(set(rows.tolist())) == 25


def test_blocks_of_logits_have_no_noise():
    z = np.full((5, 5), -1.0)
    z[:3, 3:], z[3:, :3], z[3:, 3:] = -2.0, 0.5, -0.25
    z[np.arange(5), np.arange(5)] = [4, 4, 4, 3, 3]
    assert imbalance_network.block_noise(z, 3) == 0
    z[0, 3] += 0.6  # of six entries: a standard deviation of 0.6 sqrt(5) / 6, over a range from -2 + 0.1 to 4
    assert imbalance_network.block_noise(z, 3) == pytest.approx(0.6 * np.sqrt(5) / 6 / 5.9)


def test_a_canvas_holds_both_images_in_opposite_corners(rng):
    images, labels = rng.random((30, 28, 28)).astype(np.float32) + 1, np.repeat(np.arange(3), 10)
    images[0, 0, 0] = 0  # the background's
    x, tags = canvas.canvases(images, labels, 2, 4, seed=0)
    np.testing.assert_array_equal(tags.sum(1), [1] * 6 + [2] * 12)
    np.testing.assert_array_equal(tags.sum(0), [2 + 8] * 3)
    grids = x.reshape(-1, 24, 24)
    for grid, count in zip(grids, tags.sum(1), strict=True):
        corners = [bool(c.all()) for c in (grid[:10, :10], grid[:10, -10:], grid[-10:, :10], grid[-10:, -10:])]
        assert corners in ([True, False, False, True], [False, True, True, False]) if count == 2 else sum(corners) == 1
    np.testing.assert_allclose(grids[:6].sum((1, 2)) / 196, images.mean(), rtol=0.1)
    z = np.array([[3.0, 2, 1], [1, 3, 2], [3, 1, 2]])
    assert canvas.iou(z, np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])) == pytest.approx((1 + 1 / 3 + 0) / 3)


def test_sessions_replay_exemplars_and_bring_new_classes():
    y = np.repeat(np.arange(6), 20)
    rows, seen = sessions.parts(y, 3, exemplars=4, per_class=20, seeds=2)
    for own, known in zip(rows, seen, strict=True):
        np.testing.assert_array_equal(known.sum(1), [2, 4, 6])
        for i in range(3):
            held = np.unique(own[i])
            new = known[i] & ~(known[i - 1] if i else np.zeros(6, bool))
            np.testing.assert_array_equal(np.bincount(y[held], minlength=6)[new], [20, 20])
            np.testing.assert_array_equal(np.bincount(y[held], minlength=6)[known[i] & ~new], [4] * (2 * i))
    with pytest.raises(UserError, match="equal parts"):
        sessions.parts(y, 4, exemplars=4, per_class=20, seeds=2)


def test_deep_collapse_of_a_head_costs_its_bound():
    """n examples a class, decays l_W of each layer and l_H of the features: equal orthogonal factors reach the closed "
    "form."""
    k, n, depth, of_w, of_h = 3, 4, 4, 0.004, 0.003  # of_h is n l_H
    even = (of_w**depth * of_h) ** (1 / (depth + 1))
    bound = deep_model.collapsed_loss(k, depth, even)
    found = []
    for s in np.linspace(0.8, 1.0, 201):
        w, h = (s ** (1 / (depth + 1)) * np.sqrt(even / d) * np.eye(k) for d in (of_w, of_h))
        features = np.repeat(h, n, axis=1)  # [D, N]
        out = np.asarray(deep_model.layers_of([*[w] * depth, features])[-1], np.float64)
        y = np.repeat(np.eye(k), n, axis=1)
        decayed = of_w * depth * np.sum(w**2) + of_h / n * np.sum(features**2)
        found.append(np.sum((out - y) ** 2) / (2 * k * n) + decayed / 2)
    assert min(found) == pytest.approx(bound, rel=1e-4)
    assert min(found) > bound - 1e-6


def test_collapse_of_a_heads_layers(rng):
    labels = np.repeat(np.arange(3), 4)
    means = np.array([[3.0, -1, 0], [0, 2, 0], [0, 0, 1]])  # columns are classes
    noise = rng.normal(size=(3, 12))
    noise -= np.stack([noise[:, labels == c].mean(1) for c in range(3)], axis=1)[:, labels]
    found = deep_model.collapse(
        [means[:, labels], means[:, labels] + 0.1 * noise, np.outer([1, 2, 0], labels + 1.0)], labels
    )
    centred = means - means.mean(1, keepdims=True)
    assert found["dnc1"][0] == 0
    assert found["dnc1"][1] == pytest.approx(0.01 * np.sum(noise**2) / 12 / (np.sum(centred**2) / 3))
    assert found["rank"] == [3, 3, 1]
    assert found["condition"][0] == pytest.approx(3.0)  # diag(3, 2, 1) after the ReLU


def test_a_small_convolutional_network_learns(rng):
    x = rng.normal(size=(40, 12, 12, 1)).astype(np.float32)
    params = cnn.init(jax.random.key(0), 12, 5)
    assert cnn.features(params, x).shape == (40, 5)
    h = x.astype(np.float64)
    for kernel, bias in params[:-1]:  # "SAME" of an even size with stride 2 pads below and to the right alone
        kernel, padded = np.asarray(kernel, np.float64), np.pad(h, ((0, 0), (0, 1), (0, 1), (0, 0)))
        side = (h.shape[1] + 1) // 2
        if h.shape[1] % 2:
            padded = np.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = [[padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] for j in range(side)] for i in range(side)]
        h = np.maximum(
            np.stack([np.stack([np.einsum("nijc,ijco->no", w, kernel) for w in row], 1) for row in windows], 1) + bias, 0
        )
    wanted = h.reshape(40, -1) @ np.asarray(params[-1][0], np.float64) + np.asarray(params[-1][1])
    np.testing.assert_allclose(cnn.features(params, x), wanted, rtol=1e-4, atol=1e-5)
    target = jnp.asarray(rng.normal(size=(40, 5)))

    def loss(p, rows):
        return jnp.mean((cnn.features(p, jnp.asarray(x)[rows]) - target[rows]) ** 2)

    every = np.arange(40)
    options = {"images": 40, "lr": 1e-2, "steps": 60, "batch_size": 20, "seed": 0}
    first, after = cnn.fit(loss, params, **options, at=(1, 60))
    assert float(loss(after, every)) < 0.5 * float(loss(params, every))
    (alone,) = cnn.fit(loss, params, **{**options, "steps": 1}, at=(1,))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # Adam's first step, of the full rate either way


def test_clients_share_all_images_and_heads_are_realigned(rng):
    y = np.repeat(np.arange(5), 40)
    parts = clients.shares(y, 4, 0.1, rng)
    assert sorted(np.concatenate(parts).tolist()) == list(range(200))
    dealt = clients.deal(y, 4, 0.5, ratio=0.1, seed=0)
    np.testing.assert_array_equal(dealt.counts.sum(0), [round(40 * 0.1 ** (c / 4)) for c in range(5)])
    np.testing.assert_array_equal(dealt.counts.sum(1), dealt.sizes)
    for rows, size, counts in zip(dealt.rows, dealt.sizes, dealt.counts, strict=True):
        np.testing.assert_array_equal(np.bincount(dealt.labels[rows[:size]], minlength=5), counts)
    head = jnp.asarray(rng.normal(size=(64, 5)))
    even = rounds.realign(head)
    np.testing.assert_allclose(np.linalg.norm(even, axis=0), rounds.LENGTH, rtol=1e-5)
    np.testing.assert_allclose(np.sum(even * head, axis=0) / np.linalg.norm(head, axis=0), rounds.LENGTH, rtol=1e-5)


def test_too_many_clients_are_refused(rng):
    with pytest.raises(UserError, match="fewer than two; take fewer clients"):
        clients.shares(np.repeat(np.arange(3), 5), 30, 0.01, rng)


def test_personal_models_know_their_classes(rng):
    h, counts = rng.normal(size=(7, 64)), np.array([4.0, 0.0, 1.0])
    shared = {"head": jnp.asarray(rng.normal(size=(64, 3))), "temperature": 2.0}
    own = rng.normal(size=(64, 3))
    z = h @ np.asarray(shared["head"], np.float64)
    found = rounds.personal_logits("FedAvg", shared, own, jnp.asarray(h), counts)
    np.testing.assert_allclose(found["personal"][:, [0, 2]], z[:, [0, 2]], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["prior"][:, 0] - z[:, 0], np.log(4), atol=1e-5)
    assert (np.asarray(found["personal"])[:, 1] < -1e9).all()
    loge = np.asarray(rounds.personal_logits("FedLoGe", shared, jnp.asarray(own), jnp.asarray(h), counts)["personal"])
    unit = np.asarray(shared["head"]) / np.linalg.norm(shared["head"], axis=0)
    mixed = h @ (unit * np.linalg.norm(own, axis=0)) + h @ own
    np.testing.assert_allclose(loge[:, [0, 2]], mixed[:, [0, 2]], rtol=1e-4, atol=1e-4)


def test_what_a_federation_is_worth(rng):
    """Two clients, one class each: accuracy of the global model, and weighed as clients hold classes."""
    eye = jnp.eye(4, 64) * 5
    body = [(jnp.eye(4, 64), jnp.zeros(64))]
    shared = {"body": body, "head": jnp.asarray(np.eye(64, 4)[:, [0, 1, 3, 2]]), "temperature": 1.0}  # takes 2 for 3
    each = {"body": jax.tree.map(lambda p: jnp.stack([p, p]), body)}
    labels, counts = np.arange(4), np.array([[3.0, 0, 0, 0], [0, 0, 2.0, 2.0]])
    own = jnp.zeros((2, 64, 4))
    found = rounds.evaluate("FedAvg", (shared, own, each), eye[:, :4], labels, counts)
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["tail"] == pytest.approx(1 / 3)
    assert found["personal"] == pytest.approx((1 + 0) / 2)
    assert found["cosine"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("config", "keys", "words"),
    [
        ("multi_label", {"data": "embedded.digits"}, "expected grey images of 28 x 28 pixels"),
        ("deep_head", {"width": 4}, "a width of as many"),
        ("imbalance_network", {"below": 1.5, "above": 0.8}, "on either side of 1"),
        ("imbalance_network", {"large": 4}, "two of 10 classes at least have few images"),
        ("federated", {"alphas": [1e-4], "clients": 60}, "take fewer clients"),
    ],
)
def test_what_a_model_cannot_take_is_one_line(config, keys, words, tmp_path, capsys):
    flags = [f"--config.{key}={str(value).replace(' ', '')}" for key, value in keys.items()]
    assert main.main([f"--config={CONFIGS / config}.py:smoke", f"--workdir={tmp_path / 'w'}", *flags]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_losses_of_federated_training(rng):
    """FedETF adds the log of the client's counts; FedLoGe's backbone sees the fixed simplex alone."""
    x, y, counts = jnp.asarray(rng.normal(size=(6, 9))), jnp.asarray([0, 1, 2, 0, 1, 2]), jnp.asarray([5.0, 1.0, 3.0])
    shared = {
        "body": mlp.init(jax.random.key(0), [9, 8, 64]),
        "head": jnp.asarray(rng.normal(size=(64, 3))),
        "temperature": 4.0,
    }
    own = jnp.asarray(rng.normal(size=(64, 3)))
    h = np.asarray(mlp.features(shared["body"], x)[-1], np.float64)

    def entropy(z):
        return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(6), np.asarray(y)]))

    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    z = 4 * unit @ simplex_etf(3, 64).T + np.log(np.asarray(counts))
    assert float(rounds.loss("FedETF", shared, own, x, y, counts)) == pytest.approx(entropy(z), rel=1e-5)
    heads = [np.asarray(w, np.float64) for w in (shared["head"], own)]
    wanted = entropy(10 * unit @ sparse_etf(3, 64).T) + sum(entropy(h @ w) for w in heads)
    assert float(rounds.loss("FedLoGe", shared, own, x, y, counts)) == pytest.approx(wanted, rel=1e-5)
    assert float(rounds.loss("FedAvg", shared, own, x, y, counts)) == pytest.approx(entropy(h @ heads[0]), rel=1e-5)

    def moved(head):
        return jax.grad(lambda body: rounds.loss("FedLoGe", {**shared, "body": body, "head": head}, own, x, y, counts))(
            shared["body"]
        )

    for a, b in zip(jax.tree.leaves(moved(shared["head"])), jax.tree.leaves(moved(own)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("check", "word"),
    [
        (checks.near("x", 2.0, 2.05, 0.03), "supported"),
        (checks.near("x", 2.0, 2.2, 0.03), "contradicted"),
        (checks.near("x", 24, 24, 0, relative=False), "supported"),
        (checks.below("x", 1.0, 1.0), "contradicted"),
        (checks.above("x", 1.0, 1.0), "supported"),
        (checks.above("x", float("nan"), 1.0), "contradicted"),
        (checks.exceeds("x", (1.0, 0.5, 1.5)), "supported"),
        (checks.exceeds("x", (1.0, -0.5, 1.5)), "undecided"),
        (checks.exceeds("x", (-1.0, -1.5, -0.5)), "contradicted"),
    ],
)
def test_a_check_holds_by_its_rule(check, word):
    assert check["word"] == word


def test_all_of_them_in_miniature(tmp_path):
    assert main.main([f"--config={CONFIGS / 'all.py'}:smoke", f"--workdir={tmp_path / 'all'}"]) == 0
    page = (tmp_path / "all" / "report.html").read_text()
    for name in (p.stem for p in CONFIGS.glob("*.py") if p.stem not in ("all", "spectral_adapter")):
        record = json.loads((tmp_path / "all" / name / "results.json").read_text())
        assert all({"what", "predicted", "measured", "word"} <= c.keys() for c in record["results"]["checks"])
    assert page.count("<svg") == 11
    threshold = json.loads((tmp_path / "all" / "imbalance" / "results.json").read_text())["results"]["checks"][0]
    assert threshold["deviation"] < 0.06  # nine decays a sweep
