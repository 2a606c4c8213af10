"""Folders of images: exact pixels, upright RGB, and what cannot be read is listed."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from outgen_jax.data import folders

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 6, 4, 3), np.uint8)


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_flat_folder_gives_exact_pixels_in_name_order(tmp_path):
    for name, pixels in zip(("b.png", "a.png", "c.bmp"), PIXELS, strict=False):
        save(tmp_path / name, pixels)
    (tmp_path / ".DS_Store").write_text("hidden")
    source = folders.from_folder(tmp_path)
    assert source.ids == ("a.png", "b.png", "c.bmp")
    np.testing.assert_array_equal(source.images, PIXELS[[1, 0, 2]])
    assert source.labels is None
    assert source.class_names is None
    assert source.skipped == ()


def test_class_folders_give_labels_in_sorted_order(tmp_path):
    save(tmp_path / "dog" / "x.png", PIXELS[0])
    save(tmp_path / "cat" / "y.png", PIXELS[1])
    save(tmp_path / "cat" / "deep" / "z.png", PIXELS[2])
    save(tmp_path / "loose.png", PIXELS[3])
    (tmp_path / "bird").mkdir()
    source = folders.from_folder(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.ids == ("cat/y.png", "dog/x.png")
    assert source.labels.tolist() == [0, 1]
    assert source.labels.dtype == np.int32
    assert source.skipped == (
        "loose.png: outside the class folders",
        "bird: a folder without images",
        "cat/deep: a folder inside a class",
    )


def test_a_folder_without_images_is_no_class(tmp_path):
    save(tmp_path / "cat" / "1.JPG", PIXELS[0])
    save(tmp_path / "dog" / "1", PIXELS[1], format="PNG")  # the content decides, not the suffix
    for stray in ("__MACOSX/._1.png", "@eaDir/1.jpg", "cat/._1.JPG", "cat/Thumbs.db", ".x/1.png"):
        save(tmp_path / stray, PIXELS[2], format="PNG")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "1.xml").write_text("<annotation/>")
    (tmp_path / "desktop.ini").write_text("[.ShellClassInfo]")
    source = folders.from_folder(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.ids == ("cat/1.JPG", "dog/1")
    assert source.skipped == ("labels: a folder without images",)


def test_listing_does_not_compare_files_with_each_other(tmp_path, monkeypatch):
    for number in range(100):
        (tmp_path / f"{number}.png").touch()
    compared = []
    equal = Path.__eq__
    monkeypatch.setattr(Path, "__eq__", lambda a, b: compared.append(a) or equal(a, b))
    _, files, _ = folders._entries(tmp_path, tmp_path)
    assert len(files) == 100
    assert not compared  # a folder of 50,000 would take minutes


def test_classes_do_not_depend_on_the_limit(tmp_path):
    for name, pixels in zip(("cat/1.png", "cat/2.png", "dog/1.png"), PIXELS, strict=False):
        save(tmp_path / name, pixels)
    assert folders.from_folder(tmp_path, limit=1).class_names == ("cat", "dog")


def test_a_flat_folder_may_hold_folders_without_images(tmp_path):
    save(tmp_path / "a.png", PIXELS[0])
    (tmp_path / "old").mkdir()
    source = folders.from_folder(tmp_path)
    assert source.class_names is None
    assert source.labels is None
    assert source.skipped == ("old: a folder without images",)


def test_links_are_followed_and_what_is_no_file_is_left_alone(tmp_path):
    elsewhere = save(tmp_path / "elsewhere" / "1.png", PIXELS[0])
    root = tmp_path / "root"
    root.mkdir()
    (root / "cat").symlink_to(elsewhere.parent)
    save(root / "dog" / "1.png", PIXELS[1])
    (root / "dog" / "2.png").symlink_to(elsewhere)
    (root / "dog" / "3.png").symlink_to(tmp_path / "gone.png")
    (root / "dog" / "4.png").symlink_to(root / "dog" / "4.png")
    os.mkfifo(root / "dog" / "5.png")  # opening it would wait for ever
    source = folders.from_folder(root)
    assert source.ids == ("cat/1.png", "dog/1.png", "dog/2.png")
    np.testing.assert_array_equal(source.images, PIXELS[[0, 1, 0]])
    assert source.skipped == (
        "dog/3.png: a link to nothing",
        "dog/4.png: a link to nothing",
        "dog/5.png: not a file",
    )


def test_images_one_level_too_deep_are_found_as_the_message_says(tmp_path):
    save(tmp_path / "set" / "cat" / "1.png", PIXELS[0])
    save(tmp_path / "set" / "dog" / "1.png", PIXELS[1])
    with pytest.raises(ValueError, match=r"in '.*cat'; give '.*set'$") as error:
        folders.from_folder(tmp_path)
    remedy = str(error.value).rsplit("'", 2)[1]
    assert folders.from_folder(remedy).class_names == ("cat", "dog")


def test_a_file_for_a_folder_names_its_folder(tmp_path):
    path = save(tmp_path / "a.png", PIXELS[0])
    with pytest.raises(ValueError, match="is a file; give the folder") as error:
        folders.from_folder(path)
    assert len(folders.from_folder(str(error.value).rsplit("'", 2)[1]).images) == 1


def test_unreadable_files_are_skipped_and_listed(tmp_path):
    save(tmp_path / "a.png", PIXELS[0])
    save(tmp_path / "e.png", PIXELS[1])
    (tmp_path / "b.txt").write_text("not an image")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:70])
    Image.fromarray(np.ones((6, 4), np.float32)).save(tmp_path / "d.tiff")
    source = folders.from_folder(tmp_path)
    np.testing.assert_array_equal(source.images, PIXELS[:2])
    assert source.ids == ("a.png", "e.png")
    assert [entry.split(":")[0] for entry in source.skipped] == ["b.txt", "c.png", "d.tiff"]
    assert source.skipped[0] == "b.txt: not an image that Pillow reads"
    assert "no fixed range" in source.skipped[2]


def test_limit_counts_readable_images(tmp_path):
    (tmp_path / "a.png").write_text("not an image")
    for name, pixels in zip("bcd", PIXELS, strict=False):
        save(tmp_path / f"{name}.png", pixels)
    source = folders.from_folder(tmp_path, limit=2)
    assert source.ids == ("b.png", "c.png")
    np.testing.assert_array_equal(source.images, PIXELS[:2])


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side: turn 90 degrees clockwise to see it
    save(tmp_path / "a.png", PIXELS[0], exif=exif)
    source = folders.from_folder(tmp_path)
    np.testing.assert_array_equal(source.images[0], np.rot90(PIXELS[0], -1))


def test_other_modes_become_rgb(tmp_path):
    grey = np.arange(0, 264, 11).astype(np.uint8).reshape(6, 4)
    save(tmp_path / "grey.png", grey)
    save(tmp_path / "sixteen.png", grey.astype(np.uint16) * 257 + 100)
    save(tmp_path / "alpha.png", np.dstack([PIXELS[0], np.zeros((6, 4), np.uint8)]))
    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "palette.png", transparency=bytes(range(256)))
    source = folders.from_folder(tmp_path)
    by_name = dict(zip(source.ids, source.images, strict=True))
    assert source.skipped == ()
    np.testing.assert_array_equal(by_name["alpha.png"], PIXELS[0])
    for name in ("grey.png", "sixteen.png", "palette.png"):
        np.testing.assert_array_equal(by_name[name], np.repeat(grey[..., None], 3, 2))


def test_size_covers_then_crops_the_centre(tmp_path):
    wide = RNG.integers(0, 256, (10, 30, 3), np.uint8)
    save(tmp_path / "wide.png", wide)
    save(tmp_path / "turned.png", wide.transpose(1, 0, 2))
    source = folders.from_folder(tmp_path, size=(5, 5))
    covering = np.asarray(Image.fromarray(wide).resize((15, 5), Image.Resampling.BICUBIC))
    assert source.ids == ("turned.png", "wide.png")
    assert np.abs(source.images[1].astype(int) - covering[:, 5:10]).max() <= 1
    assert np.abs(source.images[0].astype(int) - covering[:, 5:10].transpose(1, 0, 2)).max() <= 1
    rows, columns = folders.from_folder(tmp_path, size=(4, 8)).images.shape[1:3]
    assert (rows, columns) == (4, 8)


def test_shrinking_is_antialiased(tmp_path):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    save(tmp_path / "board.png", np.repeat(board[..., None], 3, 2))
    small = folders.from_folder(tmp_path, size=(8, 8)).images.astype(int)
    assert np.abs(small - 128).max() <= 2


def test_folder_of_several_sizes_needs_a_size(tmp_path):
    save(tmp_path / "a.png", PIXELS[0])
    save(tmp_path / "b.png", PIXELS[1, :3])
    with pytest.raises(ValueError, match=r"^from_folder: 'b.png' is 3x4, .* 6x4 .* pass size="):
        folders.from_folder(tmp_path)
    assert len(folders.from_folder(tmp_path, size=(3, 3)).images) == 2


def test_folder_without_images_and_without_folder(tmp_path):
    with pytest.raises(ValueError, match="no readable image in"):
        folders.from_folder(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ValueError, match=r"the first: a.txt: not an image"):
        folders.from_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        folders.from_folder(tmp_path / "absent")
