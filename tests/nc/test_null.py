"""Floors: metrics of features whose labels carry no signal, against labels that are permuted one by one."""

import numpy as np
import pytest

from ncjax import nc
from ncjax.core.errors import UserError
from ncjax.nc import null

ALL = null.FLOORED


def features(rng, n, d, decay, kind="gauss"):
    h = rng.exponential(size=(n, d)) - 1 if kind == "tails" else rng.normal(size=(n, d))
    h = h * np.exp(0.5 * rng.normal(size=(n, 1))) if kind == "norms" else h
    h = h * np.arange(1.0, d + 1) ** -decay
    return (h @ np.linalg.qr(rng.normal(size=(d, d)))[0] + 5).astype(np.float32)


def by_hand(h, y, times, **options):
    """The metrics themselves, of labels permuted so many times."""
    rng = np.random.default_rng(7)
    reports = [nc.measure(h, rng.permutation(y), floors=False, **options) for _ in range(times)]
    return {name: np.array([getattr(r, name) for r in reports]) for name in ALL}


def middle(draws):
    return np.exp(np.log(draws).mean())


@pytest.mark.parametrize("weighting", ["class", "sample"])
@pytest.mark.parametrize("counts", [[12] * 6, [40, 9, 5, 3, 2, 2], [4] * 30], ids=["equal", "unequal", "many"])
def test_a_draw_is_the_metric_of_permuted_labels(counts, weighting):
    h = features(np.random.default_rng(0), sum(counts), 20, 0.5)
    owner, rng = np.repeat(np.arange(len(counts)), counts), np.random.default_rng(0)
    draws = null.permuted(h, np.array(counts), weighting=weighting)
    for i in range(3):
        labels = np.empty_like(owner)
        labels[rng.permutation(len(owner))] = owner
        report = nc.measure(h, labels, floors=False, weighting=weighting)
        for name in ALL:
            assert draws[name][i] == pytest.approx(getattr(report, name), rel=2e-4), name


@pytest.mark.parametrize(
    ("counts", "d", "decay", "kind"),
    [
        ([20] * 10, 128, 0.75, "gauss"),
        ([5] * 10, 128, 0.75, "gauss"),
        ([5] * 10, 64, 0.75, "tails"),
        ([30] * 30, 8, 0.5, "gauss"),
        ([2, 400] + [20] * 12, 64, 0.75, "gauss"),
        ([400] * 20, 64, 0.75, "gauss"),
        ([20] + [900] * 6, 64, 0.75, "gauss"),
        ([600] * 8, 256, 0.0, "norms"),
    ],
    ids=[
        "steep",
        "few",
        "heavy tails",
        "narrower than classes",
        "unequal",
        "sampled",
        "sampled and unequal",
        "sampled, with heavy tails",
    ],
)
def test_both_ways_agree_with_permutations(counts, d, decay, kind):
    rng, y = np.random.default_rng(1), np.repeat(np.arange(len(counts)), counts)
    h = features(rng, len(y), d, decay, kind)
    wanted = by_hand(h, y, 40)
    stats = nc.collect(h, y)
    both = {
        "permuted": null.null_draws(stats, h[null.choose_rows(len(h), len(counts))]),
        "rotated": null.null_draws(stats),
    }
    for how, draws in both.items():
        for name in ALL[: 4 if how == "permuted" else 3]:
            # 40 permutations have so much noise of their own, and so do the draws; beside it 4 % may be wrong.
            noise = wanted[name].std() / wanted[name].mean() * np.sqrt(1 / 40 + 1 / len(draws[name]))
            room = (0.04 if len(h) < 2000 else 0.08) + 4 * noise  # of a sample's own spectrum
            assert middle(draws[name]) == pytest.approx(middle(wanted[name]), rel=room), (how, name)
    assert np.isnan(both["rotated"]["directional_cdnv"]).all()


def test_the_isotropic_floor_is_far_from_that_of_a_steep_spectrum():
    rng = np.random.default_rng(0)
    h = (rng.normal(size=(400, 1280)) * np.arange(1, 1281) ** -0.75).astype(np.float32)
    report = nc.measure(h, np.arange(400) % 10)
    assert report.over_floor["nc1"] == pytest.approx(1, rel=0.2)
    assert report.floor["nc1"] > 40 * 9 / 1280 * 10


def test_where_a_value_stands():
    """Without signal p is uniform; with signal it is small; and the flag follows."""
    rng, y = np.random.default_rng(0), np.repeat(np.arange(8), 15)
    reports = [nc.measure(features(rng, 120, 30, 0.5), y) for _ in range(40)]
    for name in ALL:
        p = np.array([r.p[name] for r in reports])
        assert 0.3 < p.mean() < 0.7, name
        assert np.mean(p < 0.1) < 0.3, name
    assert all("near_floor" in r.flags for r in reports)
    found = nc.measure(features(rng, 120, 30, 0.5) + 3 * np.eye(8, 30, dtype=np.float32)[y], y)
    assert max(found.p.values()) < 1e-4
    assert "near_floor" not in found.flags


def test_a_floor_does_not_depend_on_scale_or_on_chance(rng):
    h, y = features(rng, 200, 24, 0.5), np.arange(200) % 5
    one, again, large = nc.measure(h, y), nc.measure(h, y), nc.measure(h * np.float32(1e18), y)
    assert one.floor == again.floor
    assert large.floor == pytest.approx(one.floor, rel=1e-3)


def test_features_that_do_not_vary_have_no_floor():
    report = nc.measure(np.ones((15, 3), np.float32), np.arange(15) % 3)
    assert np.isnan(list(report.floor.values())).all()
    assert report.to_dict()["nc1_over_floor"] is None


def test_dead_features_and_one_example_classes_do_not_move_a_floor():
    h, y = features(np.random.default_rng(0), 120, 10, 0.5), np.arange(120) % 6
    wide = np.concatenate([h, np.zeros((120, 40), np.float32)], axis=1)
    more, labels = np.concatenate([wide, wide[:1] + 1]), np.concatenate([y, [6]])
    for stats in (nc.collect(wide, y), nc.collect(more, labels)):
        assert nc.floors(stats).nc1 == pytest.approx(nc.floors(nc.collect(h, y)).nc1, rel=0.02)
    assert nc.measure(more, labels).floor["nc1"] == pytest.approx(nc.measure(h, y).floor["nc1"], rel=0.1)


def test_classes_of_very_different_sizes_have_every_floor():
    counts = np.geomspace(2, 120, 100).astype(int)
    h, y = features(np.random.default_rng(0), counts.sum(), 24, 0.5), np.repeat(np.arange(100), counts)
    report = nc.measure(np.tile(h, (2, 1)) + np.repeat([[0.0], [1e-3]], len(h), axis=0).astype(np.float32), np.tile(y, 2))
    assert np.isfinite(list(report.floor.values())).all()


@pytest.mark.parametrize("rows", [slice(0, 9), slice(0, 30), slice(None, None, 1)], ids=["few", "some", "wide"])
def test_a_sample_that_does_not_fit_is_refused(rows):
    h, y = features(np.random.default_rng(0), 60, 8, 0.0), np.arange(60) % 6
    sample = h[rows] if rows.stop else np.concatenate([h, h], axis=1)
    if rows.stop == 30:
        assert np.isfinite(nc.floors(nc.collect(h, y), sample)).all()
        return
    with pytest.raises(UserError, match="sample"):
        nc.floors(nc.collect(h, y), sample)


def test_many_classes_take_the_short_way_to_the_same_floor(monkeypatch):
    rng = np.random.default_rng(0)
    means = rng.normal(size=(300, 400))
    means -= means.mean(axis=0)
    gram, within = means @ means.T, means @ np.diag(np.arange(400.0)) @ means.T
    short = null._trace_of_inverse_square(gram, within, np.ones(300))
    monkeypatch.setattr(null, "SMALL", 10**6)
    assert short == pytest.approx(null._trace_of_inverse_square(gram, within, np.ones(300)), rel=1e-9)
    deficient = null._trace_of_inverse_square(np.diag(np.r_[np.ones(9), np.zeros(291)]), within, np.ones(300))
    assert deficient == pytest.approx(np.trace(within[:9, :9]))


def test_without_features_or_scatter_there_is_no_floor():
    h, y = features(np.random.default_rng(0), 60, 8, 0.0), np.arange(60) % 4
    stats = nc.collect(h, y, scatter=False)
    assert np.isnan(nc.floors(stats)).all()
    assert np.isfinite(nc.floors(stats, h)).all()
    assert np.isnan(list(nc.measure(h, y, floors=False).over_floor.values())).all()
