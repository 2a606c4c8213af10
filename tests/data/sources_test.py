"""The front door: `load` finds the right reader, and the pictures that packages carry."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from outgen_jax.data import records, sources

ROOT = Path(__file__).resolve().parents[2]
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3), np.uint8)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    source, bunch = sources.digits(), load_digits()
    assert source.images.shape == (1797, 8, 8, 1)
    levels = bunch.images.astype(int)
    assert np.abs(source.images[..., 0] * 16.0 - levels * 255).max() <= 8  # half a level of 1/255
    assert set(source.images[..., 0][levels == 8]) == {128}
    assert set(source.images[..., 0][levels == 16]) == {255}
    np.testing.assert_array_equal(source.labels, bunch.target)
    assert source.class_names == tuple("0123456789")
    assert sources.digits(limit=4).ids == ("0", "1", "2", "3")


def test_photographs_are_those_of_scikit_image():
    from skimage.data import chelsea
    from skimage.transform import resize

    source = sources.photographs(size=(60, 60))
    assert source.images.shape == (5, 60, 60, 3)
    assert source.ids == ("astronaut", "chelsea", "coffee", "motorcycle", "rocket")
    assert source.labels is None
    expected = resize(chelsea()[:, 75:375], (60, 60), anti_aliasing=True) * 255
    assert np.abs(source.images[1] - expected).mean() < 3
    assert sources.photographs(size=(10, 20)).images.shape == (5, 10, 20, 3)


def test_photographs_without_scikit_image(monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install scikit-image"):
        sources.photographs(size=(8, 8))


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The same images as tfds/toy/1.0.0, folder and a.npz, and a folder named like a source."""
    monkeypatch.chdir(tmp_path)
    records.write_dataset(
        "tfds/toy/1.0.0",
        name="toy",
        version="1.0.0",
        fields={"image": records.image((6, 4, 3))},
        splits={"test": [{"image": image} for image in PIXELS]},
    )
    for name in ("folder", "digits"):
        Path(name).mkdir()
        for row, image in enumerate(PIXELS):
            Image.fromarray(image).save(f"{name}/{row}.png")
    np.savez("a.npz", images=PIXELS)
    return tmp_path


def test_load_picks_the_source_by_the_text(places):
    assert sources.load("photographs", limit=2).images.shape == (2, 224, 224, 3)
    assert sources.load("digits", limit=3).images.shape == (3, 8, 8, 1)
    assert sources.load("a.npz", limit=3).images.shape == (3, 6, 4, 3)
    assert sources.load("folder", limit=1).ids == ("0.png",)
    assert sources.load(places / "digits", limit=1).ids == ("0.png",)
    assert sources.load("toy", data_dir="tfds", limit=2).ids == ("0", "1")
    assert len(sources.load("tfds/toy/1.0.0", split="test[4:]").ids) == 1


@pytest.mark.usefixtures("places")
def test_load_brings_every_source_to_size():
    results = [
        sources.load(spec, data_dir="tfds", size=(3, 2), limit=2).images
        for spec in ("toy", "folder", "a.npz")
    ]
    assert results[0].shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    assert sources.load("digits", size=(16, 16), limit=2).images.shape == (2, 16, 16, 1)


def test_load_refuses_absent_sources_and_wrong_options(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"load: no folder '\./absent'"):
        sources.load("./absent")
    with pytest.raises(FileNotFoundError, match="no prepared data set 'absent'"):
        sources.load("absent", data_dir=tmp_path)
    for spec in ("photographs", "digits", "a.npz", tmp_path, "mnist"):  # each reader's own check
        with pytest.raises(ValueError, match="limit must be at least 1, or None for all; got 0"):
            sources.load(spec, limit=0)
        for size in ((0, 4), (4,), ()):
            with pytest.raises(ValueError, match=r"size must be \(height, width\)"):
                sources.load(spec, size=size)


def test_reading_needs_no_tensorflow_and_importing_needs_no_reader(places):
    directory = places / "tfds" / "toy" / "1.0.0"
    code = (
        "import sys\n"
        "from outgen_jax.data import sources\n"
        "heavy = {'tensorflow_datasets', 'PIL', 'sklearn', 'skimage'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        f"assert len(sources.load({str(directory)!r}).images) == 5\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


def test_a_file_that_is_no_npz_is_told_from_a_folder(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match=r"is a file, and no \.npz; give the folder .*'(.*)', if"
    ) as e:
        sources.load(tmp_path / "a.png")
    assert len(sources.load(re.search(r"in, '(.*?)', if", str(e.value)).group(1)).images) == 1
    np.savez(tmp_path / "a", images=np.zeros((1, 4, 4, 3), np.uint8))
    (tmp_path / "a.npz").rename(tmp_path / "A.NPZ")
    assert len(sources.load(tmp_path / "A.NPZ").images) == 1


def test_an_empty_name_is_no_folder():
    with pytest.raises(ValueError, match="the name of the images is empty"):
        sources.load("")


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_images_have_one_channel_or_three(channels):
    source = sources.ImageSource(np.zeros((1, 2, 2, 3), np.uint8), None, None, ("a",))
    with pytest.raises(ValueError, match=f"channels must be 1 or 3, got {channels}"):
        source.with_channels(channels)
