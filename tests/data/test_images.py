"""Photos as cameras, scanners and editors write them."""

import numpy as np
import pytest
from PIL import Image

from ncjax import data
from ncjax.core.errors import UserError
from ncjax.data.images import read_file

SIDE = 6


@pytest.fixture
def corner():
    """A dark picture whose upper left corner is bright."""
    pixels = np.full((SIDE, SIDE + 2, 3), 40, np.uint8)
    pixels[:2, :2] = 220
    pixels[-1, 3] = 40, 90, 40
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("orientation", "where"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_orientation_is_applied(corner, tmp_path, orientation, where):
    exif = Image.Exif()
    exif[0x0112] = orientation
    corner.save(tmp_path / "x.png", exif=exif)
    image = read_file(str(tmp_path / "x.png"))
    assert image.shape == ((SIDE, SIDE + 2, 3) if orientation in (1, 3) else (SIDE + 2, SIDE, 3))
    assert image[where].tolist() == [220] * 3
    assert np.sum(image == 220) == 12


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_scaled(tmp_path, suffix):
    deep = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    Image.fromarray(deep).save(tmp_path / f"x{suffix}")
    image = read_file(str(tmp_path / f"x{suffix}"))
    assert image.shape == (SIDE, SIDE, 1)
    np.testing.assert_array_equal(image[..., 0], deep >> 8)


@pytest.mark.parametrize(("dtype", "words"), [(np.float32, "floating-point"), (np.int32, "32-bit")])
def test_numbers_without_a_range_are_refused(tmp_path, dtype, words):
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "x.tiff")
    with pytest.raises(UserError, match=f"x.tiff holds {words} numbers"):
        read_file(str(tmp_path / "x.tiff"))


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".tif", ".webp", ".jpeg", ".PNG"])
def test_formats_are_read(corner, tmp_path, suffix):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(3):
                corner.save(tmp_path / split / name / f"{i}{suffix}")
    found = data.load(data.Data(f"folder:{tmp_path}"))
    assert found.image_shape == (SIDE, SIDE + 2, 3)
    assert not [note for note in found.notes if "not read" in note]
    assert abs(int(found.splits["test"].images[0, 0, 0, 0]) - 220) < 25


def test_a_grey_palette_is_grey(tmp_path):
    Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6)).save(tmp_path / "x.gif")
    assert read_file(str(tmp_path / "x.gif"))[..., 0].ravel().tolist() == list(range(36))


def test_errors_name_files_as_paths(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError) as e:
        read_file(str(tmp_path / "x.jpg"))
    assert str(e.value).startswith(f"{tmp_path / 'x.jpg'} does not decode as an image (")
    assert "np.str_" not in str(e.value)


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_a_path_without_its_kind_is_understood(tmp_path, kind):
    place = tmp_path / ("photos" if kind == "folder" else "x.npz")
    place.mkdir() if kind == "folder" else place.write_bytes(b"")
    with pytest.raises(UserError, match=f"did you mean {kind}:{place}"):
        data.load(data.Data(str(place)))


def test_mean_and_std_can_be_set_and_contradictions_are_said(tmp_path, npz):
    from ncjax.networks.card import Card
    from ncjax.networks.load import load_data_for

    given = data.load(data.Data(f"npz:{npz}", mean=[0.4], std=[0.3]))
    assert (given.mean, given.std) == ((0.4,), (0.3,))
    own = data.load(data.Data(f"npz:{npz}"))
    assert own.mean != (0.4,)
    assert own.identity() != given.identity()
    card = Card("models.mlp.mlp(width=4)", 0, (8, 8, 1), ("a", "b", "c"), mean=(0.5,), std=(0.25,))
    assert load_data_for(card, data.Data(f"npz:{npz}")).mean == (0.5,)
    found = load_data_for(card, data.Data(f"npz:{npz}", mean=[0.4], std=[0.3]))
    assert found.mean == (0.4,)
    assert found.notes[-1] == "mean and std are set, and the network was trained with mean [0.5] and std [0.25]"
    assert load_data_for(card, data.Data(f"npz:{npz}", mean=[0.5], std=[0.25])).notes == own.notes
    for wrong, words in (
        ({"mean": [0.4]}, "both, a number a channel"),
        ({"mean": [0.4] * 3, "std": [0.3] * 3}, "3 numbers for"),
    ):
        with pytest.raises(UserError, match=words):
            data.load(data.Data(f"npz:{npz}", **wrong))
