"""Uploads of every kind are decoded or refused, within limits."""

import io

import numpy as np
import pytest
import toy_studio
from PIL import Image
from toy_studio import image_file

from outgen_jax.studio import uploads
from outgen_jax.studio.uploads import UploadError, decode


def test_an_image_is_cut_to_a_square_and_resized():
    file = io.BytesIO()
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    Image.fromarray(wide).save(file, "PNG")
    decoded = decode(file.getvalue(), size=8)
    assert decoded.image.shape == (8, 8, 3)
    assert decoded.image[:, 1:-1].min() == 255  # the white middle
    assert decoded.notes == ()
    assert decode(file.getvalue(), size=8, channels=1).image.shape == (8, 8, 1)


def test_a_photograph_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    assert decode(file.getvalue(), size=16).image[-1].min() == 255


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "no image"),
        (b"", "no image"),
        (image_file(kind="TIFF"), "no image"),
        (toy_studio.bomb(), "pixels; at most|more than 100 million"),
        (image_file(size=(1, 1)), "only 1 × 1 pixels"),
        (image_file(size=(9000, 6000), mode="1"), "9,000 × 6,000 pixels; at most 50 million"),
        (image_file(mode="RGB", kind="JPEG")[:300], "damaged"),
        (image_file(size=(200, 200))[:60], "damaged"),
    ],
    ids=["text", "empty", "TIFF", "bomb", "1x1", "large", "cut JPEG", "cut PNG"],
)
def test_what_cannot_be_used_gets_a_message(data, message):
    with pytest.raises(UploadError, match=message):
        decode(data, size=8)


def test_too_many_bytes_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(uploads, "MOST_BYTES", 10)
    with pytest.raises(UploadError, match="larger than"):
        decode(image_file(), size=8)


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (image_file("CMYK", kind="JPEG"), "CMYK"),
        (toy_studio.animation(), "first frame"),
        (image_file("RGBA"), "Transparency"),
    ],
    ids=["CMYK", "animated", "transparent"],
)
def test_what_is_lost_is_noted(data, note):
    decoded = decode(data, size=8)
    assert decoded.image.shape == (8, 8, 3)
    assert note in " ".join(decoded.notes)


def test_a_photograph_with_a_preview_is_no_animation():
    """As many cameras write them: Pillow calls it MPO."""
    file = io.BytesIO()
    red, blue = (Image.new("RGB", (20, 20), colour) for colour in ("red", "blue"))
    red.save(file, "MPO", save_all=True, append_images=[blue])
    decoded = decode(file.getvalue(), size=8)
    assert decoded.notes == ()
    assert decoded.image[0, 0].tolist() == [254, 0, 0]


def test_the_first_frame_is_shown():
    assert decode(toy_studio.animation(), size=8).image[0, 0].tolist() == [255, 0, 0]
