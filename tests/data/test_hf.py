"""Sets of Hugging Face datasets, from this machine's disk."""

import io

import numpy as np
import pytest
from PIL import Image

from ncjax import data
from ncjax.core.errors import UserError
from ncjax.data.images import take

hf = pytest.importorskip("datasets", reason="datasets is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")


def _rows(count, seed=0):
    rng = np.random.default_rng(seed)
    images = [Image.fromarray(x) for x in rng.integers(0, 255, (count, 8, 8, 3), np.uint8)]
    features = hf.Features({"photo": hf.Image(), "kind": hf.ClassLabel(names=["ant", "bee"])})
    return hf.Dataset.from_dict({"photo": images, "kind": [i % 2 for i in range(count)]}, features=features), images


@pytest.mark.parametrize("resident", [0, 2**30])
def test_a_set_on_disk_is_read_as_its_files_hold_it(tmp_path, resident):
    train, images = _rows(12)
    test, _ = _rows(6, seed=1)
    hf.DatasetDict({"train": train, "validation": test, "test": test, "extra": test}).save_to_disk(str(tmp_path / "set"))
    found = data.load(data.Data(f"hf:{tmp_path / 'set'}", resident_bytes=resident))
    assert found.class_names == ("ant", "bee")
    assert {k: len(s.labels) for k, s in found.splits.items()} == {"train": 12, "val": 6, "test": 6}
    assert any("not read, as no split is called so: extra" in note for note in found.notes)
    seen = take(found.splits["train"].images, np.arange(12))
    np.testing.assert_array_equal(seen, np.stack([np.asarray(i) for i in images]))


def test_orientation_is_that_of_files(tmp_path):
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels).save(out, format="png", exif=exif)
    features = hf.Features({"img": hf.Image(), "label": hf.Value("int64")})
    rows = {"img": [{"bytes": out.getvalue(), "path": None}] * 10, "label": [0, 1] * 5}
    hf.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    found = data.load(data.Data(f"hf:{tmp_path / 'set'}", val_fraction=0.0))
    assert found.class_names == ("0", "1")
    np.testing.assert_array_equal(found.splits["train"].images[0], np.rot90(pixels, -1))


def test_which_column_is_the_label_is_said_or_asked(tmp_path):
    images = [Image.fromarray(np.full((4, 4), 20 * i, np.uint8)) for i in range(10)]
    kinds = {"domain": ["x", "y"], "species": ["ant", "bee", "cow"]}
    features = hf.Features({"image": hf.Image(), **{k: hf.ClassLabel(names=v) for k, v in kinds.items()}})
    rows = {"image": images, "domain": [0, 1] * 5, "species": [0, 1, 1, 2, 2] * 2}
    hidden = {"image": images, "domain": [-1] * 10, "species": [-1] * 10}
    made = {"train": rows, "validation": rows, "test": hidden}
    made = {split: hf.Dataset.from_dict(each, features=features) for split, each in made.items()}
    hf.DatasetDict(made).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(UserError, match="several columns of ClassLabel: domain, species; say which"):
        data.load(data.Data(f"hf:{tmp_path / 'set'}"))
    found = data.load(data.Data(f"hf:{tmp_path / 'set'}#species"))
    assert found.class_names == ("ant", "bee", "cow")
    assert "test: 10 of 10 images have no label, and are left out" in found.notes
    assert len(found.splits["val"].labels) == 10
    assert set(found.splits) == {"train", "val", "test"}  # a test split is held out of train
    with pytest.raises(UserError, match="none is called colour"):
        data.load(data.Data(f"hf:{tmp_path / 'set'}#colour"))


def test_what_cannot_be_read_is_one_line(tmp_path):
    hf.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(str(tmp_path / "text"))
    with pytest.raises(UserError, match="has columns text; expected one of Image, or called image"):
        data.load(data.Data(f"hf:{tmp_path / 'text'}"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be opened"):
        data.load(data.Data(f"hf:{tmp_path / 'empty'}"))
