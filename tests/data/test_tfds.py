"""A prepared tensorflow-datasets set is read without TensorFlow; anything else is one clear line."""

import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from ncjax import data
from ncjax.core.errors import UserError


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    pytest.importorskip("array_record", reason="the array_record wheel exists for Linux only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_datasets as tfds

        if "tiny_tfds" not in sys.modules:  # a set registers its name once
            spec = importlib.util.spec_from_file_location("tiny_tfds", Path(__file__).with_name("tiny_tfds.py"))
            sys.modules["tiny_tfds"] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules["tiny_tfds"])
        module = sys.modules["tiny_tfds"]
        builder = module.TinyStripes(data_dir=tmp_path, file_format="array_record")
        builder.download_and_prepare()
        real = tfds.builder
        monkeypatch.setattr(
            tfds,
            "builder",
            lambda name: (
                module.TinyStripes(data_dir=tmp_path, file_format="array_record")
                if name == "tiny_stripes"
                else real(name, data_dir=tmp_path)
            ),
        )
    return "tfds:tiny_stripes"


@pytest.mark.filterwarnings("ignore")
def test_prepared_set(prepared):
    d = data.load(data.Data(prepared, val_fraction=0.0))
    assert d.class_names == ("x", "y", "z")
    assert d.image_shape == (8, 8, 3)
    train = d.splits["train"]
    assert sorted(np.bincount(train.labels)) == [4, 4, 4]
    bright = train.images[:, :, 0, 0].argmax(axis=1)
    np.testing.assert_array_equal(bright, 2 * train.labels)
    assert "tensorflow" not in sys.modules


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["missing", "cut", "empty", "other bytes"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_shard_that_cannot_be_read_is_named(prepared, tmp_path, how, split):
    shard = next(p for p in tmp_path.rglob("*") if p.is_file() and f"-{split}." in p.name and "array_record" in p.name)
    whole = shard.read_bytes()
    {
        "missing": shard.unlink,
        "cut": lambda: shard.write_bytes(whole[: len(whole) // 2]),
        "empty": lambda: shard.write_bytes(b""),
        "other bytes": lambda: shard.write_bytes(bytes(255 - x for x in whole)),
    }[how]()
    with pytest.raises(UserError, match=shard.name) as e:
        data.load(data.Data(prepared))
    assert "\n" not in str(e.value)


@pytest.mark.filterwarnings("ignore")
def test_unprepared_set_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"ncjax\[tfds\].*tfds build no_such_set"):
        data.load(data.Data("tfds:no_such_set"))
