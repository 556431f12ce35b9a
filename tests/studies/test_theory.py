"""Toy models: their parts against closed forms, and all of them in miniature."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax import main
from ncjax.studies.theory import checks, deep_ufm, fixed_etf, mlp, parsimony, pick_all_label, solver

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "theory"


def test_the_strongly_regular_graph_gives_the_identity():
    for r in (4, 5, 6, 7):
        b = deep_ufm.incidence(r)
        k = r * (r - 1) // 2
        before = b.T @ b - 1
        np.testing.assert_array_equal(np.maximum(before, 0), np.eye(k))
        assert np.linalg.matrix_rank(before) == (3 if r == 4 else r)
        params = [jnp.asarray(x) for x in deep_ufm.graph_start(r, 4, max(2 * r, k))]
        out = np.asarray(deep_ufm.layers_of(params)[-1])
        np.testing.assert_allclose(out, np.eye(k), atol=1e-6)


def test_deep_collapse_is_the_loss_of_orthogonal_layers():
    """s of each of K directions, shared by L + 1 factors, and the square loss of s beside 1."""
    k, depth, decay = 4, 3, 0.004
    best = deep_ufm.collapsed_loss(k, depth, decay)
    for s in (0.8, 0.9, 0.95, 1.0):
        factor = s ** (1 / (depth + 1)) * np.eye(k)
        assert float(deep_ufm.objective([jnp.asarray(factor)] * (depth + 1), decay)) >= best - 1e-6
    assert deep_ufm.collapsed_loss(10, 4, 0.004) == pytest.approx(0.09918, abs=1e-5)


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
    assert parsimony.equal_values(np.diag([3.0, 1.0, 1.0, 1.0])) == 3
    assert parsimony.straightness(0.5 ** np.arange(6)) == pytest.approx(1)
    assert parsimony.straightness(np.array([1.0, 0.2, 0.9, 0.1, 1.1])) < 0.3
    q = np.asarray(parsimony.orthogonal(jax.random.key(0), 5))
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
    for name in (p.stem for p in CONFIGS.glob("*.py") if p.stem != "all"):
        record = json.loads((tmp_path / "all" / name / "results.json").read_text())
        assert all({"what", "predicted", "measured", "word"} <= c.keys() for c in record["results"]["checks"])
    assert page.count("<svg") == 7
    threshold = json.loads((tmp_path / "all" / "imbalance" / "results.json").read_text())["results"]["checks"][0]
    assert threshold["deviation"] < 0.06  # nine decays a sweep
