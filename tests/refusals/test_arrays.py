"""`ncjax.nc` never gives a wrong number: any integer or float type at any offset, and a sentence for what is no array."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax import nc
from ncjax.core.errors import UserError

RNG = np.random.default_rng(0)
LABELS = np.arange(240) % 4
SHAPE = RNG.integers(-40, 40, (4, 6))[LABELS] + RNG.integers(-9, 10, (240, 6))  # exact in every type
TRUE = nc.measure(SHAPE.astype(np.float32), LABELS).to_dict()
ORIGIN_MATTERS = {"discrimination", "effective_rank", "stable_rank", "rankme", "numerical_rank"}


@pytest.mark.parametrize(
    ("dtype", "offset"),
    [
        (np.int64, 2**31),
        (np.int64, -(2**40)),
        (np.uint64, 2**33),
        (np.int32, 2**31 - 200),
        (np.uint32, 2**32 - 200),
        (np.int16, 2**15 - 200),
        (np.uint8, 100),
        (np.int8, 0),
        (np.float64, 0),
        (np.float64, 1e5),
        (np.float64, 1e9),
        (np.float64, -1e12),
        (np.float32, 1e4),
        (np.float16, 0),
    ],
)
def test_values_do_not_depend_on_type_or_offset(dtype, offset):
    features = SHAPE.astype(dtype) + np.asarray(offset, dtype)
    report = nc.measure(features, LABELS, floors=False).to_dict()
    for name in ("nc1", "cdnv", "trace_ratio", "nc2", "equiangularity", "directional_cdnv"):
        assert report[name] == pytest.approx(TRUE[name], rel=2e-4), name
    stats = nc.collect(features, LABELS)
    assert float(nc.nc1(stats)) == pytest.approx(TRUE["nc1"], rel=2e-4)
    about = nc.measure(features, LABELS, centres=stats, floors=False).to_dict()
    assert about["nc1_about"] == pytest.approx(TRUE["nc1"], rel=2e-4)


@pytest.mark.parametrize("spread", [1e-3, 1e-6, 1e-9])
def test_collapsed_float64_features_are_not_rounded_away(spread):
    means = RNG.normal(size=(4, 6))
    features = means[LABELS] + spread * RNG.normal(size=(240, 6))
    with jax.enable_x64(True):
        wanted = nc.measure(features, LABELS, floors=False).to_dict()["nc1"]
    assert nc.measure(features, LABELS, floors=False).to_dict()["nc1"] == pytest.approx(wanted, rel=1e-3)


def test_beyond_float64_is_refused():
    with pytest.raises(UserError, match="subtract their mean first"):
        nc.measure(SHAPE + 2**52, LABELS)


def test_statistics_in_float64_are_not_added_to_in_float32():
    stats = nc.collect(SHAPE + 10**12, LABELS)
    with pytest.raises(UserError, match="kept in float64: add"):
        nc.observe(stats, SHAPE, LABELS)
    with jax.enable_x64(True):
        both = nc.observe(stats, SHAPE + 10**12, LABELS)
    assert float(nc.nc1(both)) == pytest.approx(TRUE["nc1"], rel=1e-6)


class _Sparse:
    nnz, dtype = 3, np.dtype(float)

    def toarray(self):
        return SHAPE


NO_ARRAYS = {
    "None": (None, "None"),
    "text": ("features.npy", "text"),
    "bytes": (b"abc", "text"),
    "dictionary": ({"x": SHAPE}, "dictionary"),
    "empty dictionary": ({}, "dictionary"),
    "ragged": ([[1.0, 2.0], [3.0]], "different lengths"),
    "ragged arrays": (np.array([np.ones(2), np.ones(3)], object), "different lengths"),
    "objects": (np.array([[object()] * 6] * 240, object), "holds"),
    "text array": (np.full((240, 6), "a"), "expected numbers"),
    "dates": (np.full((240, 6), "2020-01-01", "datetime64[D]"), "expected numbers"),
    "masked": (np.ma.masked_greater(SHAPE.astype(float), 10), "masked"),
    "sparse": (_Sparse(), "toarray"),
    "set": ({1, 2}, "set"),
    "function": (len, "expected an array"),
    "generator": ((x for x in SHAPE), "generator"),
    "complex": (SHAPE * 1j, "complex"),
    "lists of text": ([["a", "b"]], "numbers"),
}


@pytest.mark.parametrize("kind", NO_ARRAYS)
@pytest.mark.parametrize("function", ["measure", "collect", "observe", "look_at", "outside", "observe jitted"])
def test_what_is_no_array_is_named(kind, function):
    thing, words = NO_ARRAYS[kind]
    stats = nc.collect(SHAPE, LABELS)
    call = {
        "measure": lambda: nc.measure(thing, LABELS),
        "collect": lambda: nc.collect(thing, LABELS),
        "observe": lambda: nc.observe(nc.empty(4, 6), thing, LABELS),
        "observe jitted": lambda: jax.jit(lambda s: nc.observe(s, thing, LABELS))(nc.empty(4, 6)),
        "look_at": lambda: nc.look_at(stats, thing, LABELS),
        "outside": lambda: nc.measure(SHAPE, LABELS, outside=thing) if thing is not None else nc.measure(None, LABELS),
    }[function]
    with pytest.raises(UserError) as e:
        call()
    assert words in str(e.value)
    assert "\n" not in str(e.value)
    assert str(e.value).startswith(("outside", "features"))


@pytest.mark.parametrize("kind", [k for k in NO_ARRAYS if k not in ("complex",)])
def test_labels_that_are_none_are_named(kind):
    thing, _ = NO_ARRAYS[kind]
    for call in (lambda: nc.measure(SHAPE, thing), lambda: nc.observe(nc.empty(4, 6), SHAPE, thing)):
        with pytest.raises(UserError, match=r"^labels"):
            call()


def test_an_array_with_nothing_masked_is_an_array():
    assert nc.measure(np.ma.masked_array(SHAPE, mask=False), LABELS).to_dict()["nc1"] == pytest.approx(TRUE["nc1"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nc.empty(0, 3), "num_classes=0"),
        (lambda: nc.empty(3, -1), "dim=-1"),
        (lambda: nc.empty(2.5, 3), "num_classes=2.5"),
        (lambda: nc.empty("3", 3), "num_classes='3'"),
        (lambda: nc.empty(True, 3), "num_classes=True"),
        (lambda: nc.empty(3, 3, int), "dtype="),
        (lambda: nc.empty(3, 3, "float99"), "dtype='float99'"),
        (lambda: nc.observe(None, SHAPE, LABELS), "stats: got NoneType"),
        (lambda: nc.observe((1, 2), SHAPE, LABELS), "stats: got tuple"),
        (lambda: nc.observe(nc.empty(4, 5), SHAPE, LABELS), r"\[N, 5\]"),
        (lambda: nc.observe(nc.empty(4, 6), SHAPE, LABELS[:-1]), r"labels \[N\]"),
        (lambda: nc.observe(nc.empty(4, 6), SHAPE, LABELS, np.ones(3)), r"mask: expected \[240\]"),
        (lambda: nc.observe(nc.empty(4, 6), SHAPE, LABELS, "all"), "mask: got text"),
        (lambda: nc.observe(nc.empty(4, 6), SHAPE, LABELS / 1), "labels must be integers"),
        (lambda: nc.observe(nc.empty(4, 6)._replace(spread=jnp.zeros(3)), SHAPE, LABELS), "stats.spread"),
        (lambda: nc.observe(nc.empty(4, 6)._replace(count=None), SHAPE, LABELS), "stats.count"),
        (lambda: nc.merge(nc.empty(4, 6), nc.empty(4, 5)), "different kinds"),
        (lambda: nc.merge(nc.empty(4, 6), nc.empty(4, 6, scatter=False)), "different kinds"),
        (lambda: nc.merge(nc.empty(4, 6), None), "second statistics: got NoneType"),
        (lambda: nc.merge(None, nc.empty(4, 6)), "first statistics: got NoneType"),
        (lambda: nc.merge(3, 4), "first statistics: got int"),
        (lambda: nc.report(None), "stats: got NoneType"),
        (lambda: nc.report(SHAPE), "stats: got ndarray"),
        (lambda: nc.report(nc.collect(SHAPE, LABELS), look=3), "look: got int"),
        (lambda: nc.report(nc.collect(SHAPE, LABELS), about=3), "about: expected"),
        (lambda: nc.report(nc.collect(SHAPE, LABELS), tilt="x"), "tilt: got str"),
        (lambda: nc.report(nc.collect(SHAPE, LABELS), weighting="x"), "weighting='x'"),
        (lambda: nc.report(nc.collect(SHAPE, LABELS), sample=SHAPE[:, :3]), "sample"),
        (lambda: nc.nc1(SHAPE), "stats: got ndarray"),
        (lambda: nc.nc2(None), "stats: got NoneType"),
        (lambda: nc.frame(3), "stats: got int"),
        (lambda: nc.unseen(3), "frame: got int"),
        (lambda: nc.look(3, nc.frame(nc.collect(SHAPE, LABELS)), SHAPE, LABELS), "seen: got int"),
        (lambda: nc.measure(SHAPE, LABELS, centres=3), "centres: got int"),
        (lambda: nc.measure(SHAPE, LABELS, classifier=3), "classifier"),
        (lambda: nc.measure(SHAPE, LABELS, num_classes="4"), "num_classes='4'"),
        (lambda: nc.measure(SHAPE, np.full(240, 2**62)), "renumber the labels"),
        (lambda: nc.measure(SHAPE[:0], LABELS[:0]), "empty"),
        (lambda: nc.measure(SHAPE[0], LABELS), r"\[N, D\]"),
    ],
)
def test_wrong_kinds_lengths_and_sizes_are_one_line(call, words):
    with pytest.raises(UserError, match=words) as e:
        call()
    assert "\n" not in str(e.value)


def test_shapes_are_refused_under_jit_too():
    step = jax.jit(nc.observe)
    with pytest.raises(UserError, match=r"\[N, 6\]"):
        step(nc.empty(4, 6), SHAPE[:, :3].astype(np.float32), LABELS)
    with pytest.raises(UserError, match="mask"):
        step(nc.empty(4, 6), SHAPE.astype(np.float32), LABELS, np.ones(3))
    with pytest.raises(UserError, match="different kinds"):
        jax.jit(nc.merge)(nc.empty(4, 6), nc.empty(3, 6))


def test_arguments_by_name_are_taken_and_looked_at():
    far = SHAPE + 2**31
    assert nc.measure(features=far, labels=LABELS, floors=False).to_dict()["nc1"] == pytest.approx(TRUE["nc1"], rel=1e-4)
    stats = nc.collect(features=far, labels=LABELS)
    assert stats.anchor.dtype == np.float64
    assert nc.report(stats=stats, floors=False).to_dict()["nc1"] == pytest.approx(TRUE["nc1"], rel=1e-4)
    nc.look_at(stats, features=far, labels=LABELS)
    with jax.enable_x64(True):
        frame = nc.frame(stats)
        seen = nc.unseen(frame)
    with pytest.raises(UserError, match="kept in float64"):
        nc.look(seen, frame, far, LABELS)


def test_collapse_below_float64_is_no_matter_of_the_origin():
    means = RNG.normal(size=(4, 6))
    assert nc.measure(means[LABELS] + 1e-15 * RNG.normal(size=(240, 6)), LABELS, floors=False).flags


def test_outside_features_are_as_exact_as_the_rest():
    outside = SHAPE[:20] + 3
    wanted = nc.measure(SHAPE.astype(np.float32), LABELS, outside=outside, floors=False).to_dict()["nc5"]
    found = nc.measure(SHAPE + 1e7, LABELS, outside=outside + 1e7, floors=False).to_dict()["nc5"]
    with jax.enable_x64(True):
        exact = nc.measure(SHAPE + 1e7, LABELS, outside=outside + 1e7, floors=False).to_dict()["nc5"]
    assert wanted is not None
    assert found == pytest.approx(exact, rel=1e-3)


def test_ragged_rows_of_any_depth_are_named():
    with pytest.raises(UserError, match="features"):
        nc.measure([[[1, 2], [3]], [[1]]], LABELS)
