"""`python -m ncjax.nc`: a file in, a table out."""

import json

import numpy as np
import pytest

from ncjax import nc
from ncjax.losses.etf import simplex_etf
from ncjax.nc.__main__ import main


@pytest.fixture
def arrays(rng):
    y = np.repeat(np.arange(4), 20)
    x = (np.eye(4, 8)[y] * 3 + rng.normal(size=(80, 8))).astype(np.float32)
    return {"X": x, "y": y, "W": np.eye(4, 8, dtype=np.float32), "b": np.zeros(4, np.float32)}


def run(tmp_path, capsys, arrays, *flags):
    np.savez(tmp_path / "f.npz", **arrays)
    code = main([str(tmp_path / "f.npz"), *flags])
    return code, capsys.readouterr()


def test_a_table(tmp_path, capsys, arrays):
    code, shown = run(tmp_path, capsys, arrays)
    report = nc.measure(arrays["X"], arrays["y"], classifier=(arrays["W"], arrays["b"]))
    assert code == 0
    assert shown.out.strip() == str(report)
    assert f"{report.nc4:.4g}" in shown.out


def test_json_with_a_test_set(tmp_path, capsys, arrays):
    more = {"X_test": arrays["X"] + 0.5, "y_test": arrays["y"], "X_out": arrays["X"]}
    code, shown = run(tmp_path, capsys, arrays | more, "--json", "--spectrum", "--weighting=sample")
    found = json.loads(shown.out)
    assert code == 0
    assert found["test"]["nc1_about"] > found["train"]["nc1"]
    assert len(found["train"]["cdnv_pairs"]) == 4
    assert found["train"]["nc5"] > 0
    assert found["train"]["rankme"] > 1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"X": None}, "expected X [N, D] and y [N]"),
        ({"y": np.arange(80) % 5}, "labels run from 0 to 4, outside [0, 4)"),
        ({"X": np.full((80, 8), np.nan)}, "80 examples have NaN"),
        ({"X": np.array([None] * 80)}, "no readable .npz"),
        ({"X_test": np.ones((3, 8))}, "one of X_test and y_test"),
        ({"W": None}, "b without W"),
        ({"W": np.ones((4, 9))}, "expected weight [4, 8]"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, capsys, arrays, change, line):
    code, shown = run(tmp_path, capsys, {k: v for k, v in (arrays | change).items() if v is not None})
    assert code == 2
    assert shown.err.count("\n") == 1
    assert line in shown.err


def test_a_missing_or_truncated_file_is_one_line(tmp_path, capsys, arrays):
    assert main([str(tmp_path / "none.npz")]) == 2
    assert "no file" in capsys.readouterr().err
    np.savez(tmp_path / "f.npz", **arrays)
    whole = (tmp_path / "f.npz").read_bytes()
    (tmp_path / "f.npz").write_bytes(whole[: len(whole) // 2])
    assert main([str(tmp_path / "f.npz")]) == 2
    shown = capsys.readouterr().err
    assert "no readable .npz" in shown
    assert shown.count("\n") == 1


def test_class_vectors_alone(tmp_path, capsys, rng):
    w = (simplex_etf(5, 8) * 3 + 0.7).astype(np.float32)  # a simplex, moved as a whole
    code, shown = run(tmp_path, capsys, {"W": w})
    assert code == 0
    assert shown.out.startswith("5 class vectors of 8 numbers\nnc2_w ")
    code, shown = run(tmp_path, capsys, {"W": w}, "--json")
    found = json.loads(shown.out)
    for name in ("nc2_w_centred", "equinorm", "equiangularity", "maximal_angle"):
        assert found[name] == pytest.approx(0, abs=1e-6)
    assert found["discrimination_centred"] == pytest.approx(5 / 4)
    assert found["nc2_w"] > 0.1
    w = rng.normal(size=(6, 4))
    m = w - w.mean(0)
    unit = m / np.linalg.norm(m, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[~np.eye(6, dtype=bool)]
    found = nc.class_vectors(w)
    assert found["equiangularity"] == pytest.approx(cosines.std())
    assert found["equinorm"] == pytest.approx(np.linalg.norm(m, axis=1).std() / np.linalg.norm(m, axis=1).mean())
    assert found["nc2_w"] == pytest.approx(float(nc.nc2_w(w)), rel=1e-5)
    code, shown = run(tmp_path, capsys, {"W": w}, "--spectrum")
    assert code == 2
    assert "W alone" in shown.err
    opposite = np.array([[1.0, 0], [-1, 0], [0, 0]])
    for bad, line in (
        (np.ones((3, 4)), "all the same"),
        (np.full((3, 4), np.nan), "finite numbers"),
        (np.ones(3), "[3]"),
        (opposite, "row 2 is zero"),
        (opposite + 1, "row 2 is the mean of all"),
    ):
        code, shown = run(tmp_path, capsys, {"W": bad})
        assert code == 2
        assert shown.err.count("\n") == 1
        assert line in shown.err
