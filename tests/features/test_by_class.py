"""What is said of each class, against loops over examples; the picture in the plane."""

import numpy as np
import pytest

from ncjax.core.types import Model
from ncjax.features import by_class, picture
from ncjax.features.passes import Evaluation
from ncjax.features.picture import flat, rows_of


def test_a_tally_is_what_a_loop_counts(rng):
    labels, said = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    labels[labels == 2] = 1  # a class without images
    found = by_class.tally(labels, said, 4, np.array([0.5, np.nan, 0.1, 0.2]))
    for k in (0, 1, 3):
        mine = [s == k for y, s in zip(labels, said, strict=True) if y == k]
        assert found["accuracy"][k] == pytest.approx(np.mean(mine))
        assert found["counts"][k] == len(mine)
    assert found["accuracy"][2] is None
    assert found["nc1"] == [0.5, None, 0.1, 0.2]
    assert found["mean_accuracy"] == pytest.approx(np.mean([found["accuracy"][k] for k in (0, 1, 3)]))
    matrix = np.zeros((4, 4), int)
    for y, s in zip(labels, said, strict=True):
        matrix[y, s] += 1
    np.testing.assert_array_equal(found["confusion"], matrix)


def test_many_classes_keep_the_pairs_most_often_confused(rng):
    labels = np.arange(150).repeat(10)
    said = labels.copy()
    said[labels == 7] = 8
    said[:3] = 9
    found = by_class.tally(labels, said, 150, None)
    assert "confusion" not in found
    assert {k: pair for k, pair in enumerate(found["taken_for"]) if pair} == {7: [8, 10], 0: [9, 3]}


def test_mistakes_are_the_surest_wrong_answers(rng):
    logits, labels = rng.normal(size=(60, 3)).astype(np.float32), rng.integers(0, 3, 60)
    model = by_class.saying(Model(*[None] * 7)._replace(apply=lambda x: ({"logits": x}, None)))
    features = {name: np.asarray(x) for name, x in model.apply(logits)[0].items()}
    found = by_class.mistakes(Evaluation(0.0, 0.0, {}, features, {}, labels))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = sorted((-p[i].max(), i) for i in range(60) if p[i].argmax() != labels[i])[:12]
    assert [m["row"] for m in found] == [i for _, i in wrong]
    for m, (sure, i) in zip(found, wrong, strict=True):
        assert m["probability"] == pytest.approx(-sure, rel=1e-5)
        assert (m["is"], m["said"]) == (labels[i], p[i].argmax())


def test_the_plane_holds_the_directions_of_largest_variance(rng, monkeypatch):
    monkeypatch.setattr(picture, "FEWEST", 20)
    x = rng.normal(size=(50, 6)) * [5, 3, 0.1, 0.1, 0.1, 0.1] + 100
    found = flat(x)
    centred = x - x.mean(0)
    assert found["share"] == pytest.approx(
        np.square(np.linalg.svd(centred, compute_uv=False)[:2]).sum() / np.square(centred).sum()
    )
    pca = np.asarray(found["pca"])
    distances = np.linalg.norm(pca[:, None] - pca[None], axis=-1)
    wanted = np.linalg.norm(centred[:, None, :2] - centred[None, :, :2], axis=-1)
    assert np.corrcoef(distances.ravel(), wanted.ravel())[0, 1] > 0.999
    assert np.asarray(found["tsne"]).shape == (50, 2)
    assert flat(x) == found


@pytest.mark.parametrize("x", [np.ones((30, 4)), np.arange(5.0)[:, None], np.eye(3)])
def test_flat_features_have_a_plane_too(x):
    found = flat(x)
    assert np.isfinite(found["pca"]).all()
    assert found["tsne"] is None
    assert rows_of(1000).tolist() == sorted(set(rows_of(1000).tolist()))
    assert len(rows_of(1000)) == 300
