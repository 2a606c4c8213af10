"""Rows of any source come as they are, or are refused by number."""

import io
import re
from types import SimpleNamespace
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from outgen_jax.data import random_access
from outgen_jax.data.sources import ImageSource

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), np.uint8)
LABELS = np.array([1, 0, 1, 1, 0], np.int32)


class Classed(list):
    class_names = ("cat", "dog")


class Featured(list):
    """As a split of Hugging Face's `datasets` is."""

    features: ClassVar = {"image": None, "label": SimpleNamespace(names=["cat", "dog"])}

    def rename_column(self, old, new):
        raise NotImplementedError


class OfTfds(list):
    """As a tfds data source is."""

    dataset_info = SimpleNamespace(features=Featured.features)


class Endless:
    """As a streamed set of Hugging Face's is: no length."""

    def __getitem__(self, row):
        raise NotImplementedError


def block_of(source, start=0, stop=5):
    return random_access.read(
        source, random_access.spec(source, caller="f"), start, stop, caller="f"
    )


@pytest.mark.parametrize(
    "source",
    [
        ImageSource(IMAGES, LABELS, ("cat", "dog"), tuple("abcde")),
        Classed(zip(IMAGES, LABELS, "abcde", strict=True)),
        Classed(
            {"image": image, "label": label, "id": name.encode()}
            for image, label, name in zip(IMAGES, LABELS, "abcde", strict=True)
        ),
        *(
            kind(
                {"image": Image.fromarray(image), "label": int(label), "id": name}
                for image, label, name in zip(IMAGES, LABELS, "abcde", strict=True)
            )
            for kind in (Featured, OfTfds)
        ),
    ],
    ids=["ImageSource", "tuples", "mappings", "Hugging Face", "tfds"],
)
def test_sources_of_all_forms_are_one(source):
    assert random_access.spec(source, caller="f") == (5, (4, 3, 3), "uint8", ("cat", "dog"))
    block = block_of(source, 1, 4)
    np.testing.assert_array_equal(block.rows, [1, 2, 3])
    np.testing.assert_array_equal(block.images, IMAGES[1:4])
    np.testing.assert_array_equal(block.labels, LABELS[1:4])
    assert block.labels.dtype == np.int32
    assert block.ids == ("b", "c", "d")


def test_class_names_may_be_an_array():
    source = ImageSource(IMAGES, LABELS, np.array(["cat", "dog"]), tuple("abcde"))
    assert random_access.spec(source, caller="f").class_names == ("cat", "dog")


def test_class_names_that_repeat_are_refused_before_any_work():
    source = ImageSource(IMAGES, LABELS, ("crane", "crane"), tuple("abcde"))
    with pytest.raises(ValueError, match=r"f: .* 'crane' names several classes. Rename"):
        random_access.spec(source, caller="f")


@pytest.mark.parametrize("name", ["", "a\nb", " a", "a\t"])
def test_class_names_that_would_be_stored_as_others_are_refused_before_any_work(name):
    source = ImageSource(IMAGES, LABELS, ("crane", name), tuple("abcde"))
    with pytest.raises(ValueError, match=r"^f: class_names of the source: .* class 1 is .* Rename"):
        random_access.spec(source, caller="f")


def test_a_source_with_too_few_labels_or_ids_is_refused():
    fewer = ImageSource(IMAGES, LABELS, ("cat", "dog"), tuple("abc"))
    with pytest.raises(ValueError, match="f: the source has 5 images, 5 labels and 3 ids"):
        random_access.spec(fewer, caller="f")
    unlabelled = ImageSource(IMAGES, None, None, tuple("abcdef"))
    with pytest.raises(ValueError, match="f: the source has 5 images, no labels and 6 ids"):
        random_access.spec(unlabelled, caller="f")


def test_images_alone_are_named_by_their_row(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    for source in (IMAGES, np.load(tmp_path / "images.npy", mmap_mode="r"), list(IMAGES)):
        block = block_of(source, 3, 5)
        np.testing.assert_array_equal(block.images, IMAGES[3:])
        assert block.ids == ("3", "4")
        assert block.labels.tolist() == [-1, -1]


def test_floats_become_float32():
    block = block_of(IMAGES / 255)
    assert block.images.dtype == np.float32
    np.testing.assert_allclose(block.images, IMAGES / 255, atol=1e-7)


def test_the_digest_tells_everything_apart():
    targets = np.full((5, 2), 0.5, np.float32)
    first = block_of(Classed(zip(IMAGES, LABELS, "abcde", strict=True)))
    changed = [
        first,
        first._replace(images=first.images ^ np.uint8(1)),
        first._replace(labels=1 - first.labels),
        first._replace(ids=tuple("abcdf")),
        first._replace(rows=first.rows + 1),
        first._replace(images=first.images.transpose(0, 2, 1, 3)),
    ]
    digests = [block.digest([targets]) for block in changed]
    digests.append(first.digest([targets[:, ::-1] * [0.5, 1.5]]))
    assert len(set(digests)) == len(digests)
    again = block_of(Classed(zip(IMAGES, LABELS, "abcde", strict=True)))
    assert again.digest([targets.copy()]) == digests[0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "f: the source has no rows"),
        ([IMAGES[0, 0]], r"row 0 of the source: the image must be \[H, W, 1 or 3\], got \[3, 3\]"),
        ([np.zeros((4, 4, 2), np.uint8)], r"must be \[H, W, 1 or 3\], got \[4, 4, 2\]"),
        ([IMAGES[0].astype(np.int32)], "row 0 of the source: image must be .*, got int32"),
        ([(IMAGES[0], 0, "a", 1)], r"row 0 .* tuple of 4; give \(image, label\)"),
        ([{"img": IMAGES[0], "label": 0}], "row 0 .* has no 'image' but 'img', 'label'; rename"),
        ([(IMAGES[0], 0.7)], r"row 0 .* has label 0\.7 of type float; give the integer"),
        ([(IMAGES[0], np.eye(3)[1])], "row 0 .* of type ndarray; give the integer"),
        ([(IMAGES[0], "cat")], r"label 'cat', which is not among .* \(it has none\)"),
        ([(IMAGES[0], 2**40)], "row 0 .* has label 1099511627776; labels are int32"),
        ([(IMAGES[0], -2)], "row 0 .* has label -2; labels are int32, and -1 stands for none"),
        ({}, r"must have a length and give row i as source\[i\]; got a dict"),
        (Classed([(IMAGES[0], "cow")]), r"label 'cow', which is not among .* \(cat, dog\)"),
        ([Image.new("F", (3, 4))], "row 0 .* pixels of mode 'F' have no fixed range"),
        ({"images": IMAGES}, "give row i as .* got a dict. Collect what it yields in a list"),
        ({"train": Featured([])}, r"has the splits 'train'; pass one .* source\['train'\]"),
        (Endless(), "must have a length .* got a Endless. Collect what it yields in a list"),
        (
            [IMAGES[0].tobytes()],
            r"row 0 .* is encoded, 36 bytes; decode it, as in grain\.MapDataset",
        ),
        (Featured([{"img": IMAGES[0]}]), r"has no 'image' but 'img'; .* source\.rename_column\("),
        (iter(IMAGES), "got a generator|iterator. Collect what it yields in a list"),
        ([IMAGES[0], IMAGES[1][:2]], r"f: row 1 of the source has uint8 \[2, 3, 3\], row 0 uint8"),
        ([IMAGES[0], IMAGES[1] / 255], r"row 1 of the source has float64"),
        ([IMAGES[0] / 255, IMAGES[1] / 1.0], r"row 1 .* float image must lie in \[0, 1\]"),
        ([IMAGES[0] / 255, IMAGES[1] * np.nan], r"row 1 .* got NaN; leave out the images"),
        (Classed([(IMAGES[0], 0, "a"), (IMAGES[1], 2, "b")]), "row 1 .* has label 2; .* 2 classes"),
    ],
)
def test_bad_rows_are_refused_by_number(source, message):
    with pytest.raises(ValueError, match=message):
        block_of(source, 0, len(source) if hasattr(source, "__len__") else 1)


def test_pairs_as_torchvision_gives_them():
    class Pairs(list):
        classes = ("cat", "dog")

    pillow = [
        (Image.fromarray(image), int(label)) for image, label in zip(IMAGES, LABELS, strict=True)
    ]
    source = Pairs(pillow)
    assert random_access.spec(source, caller="f") == (5, (4, 3, 3), "uint8", ("cat", "dog"))
    block = block_of(source, 1, 4)
    np.testing.assert_array_equal(block.images, IMAGES[1:4])
    np.testing.assert_array_equal(block.labels, LABELS[1:4])
    assert block.ids == ("1", "2", "3")
    for pair in ([IMAGES[0], 1], [IMAGES[0], "dog"], (IMAGES[0], jnp.int32(1)), [IMAGES[0], None]):
        block = block_of(Classed([pair]), 0, 1)
        np.testing.assert_array_equal(block.images, IMAGES[:1])
        assert block.labels.tolist() == [-1 if pair[1] is None else 1]


@pytest.mark.parametrize("name", [7, np.int64(7), "7", b"7"])
def test_an_id_may_be_of_any_type(name):
    assert block_of([(IMAGES[0], None, name)], 0, 1).ids == ("7",)
    assert block_of([{"image": IMAGES[0], "id": name}], 0, 1).ids == ("7",)


def test_pillows_images_become_grey_or_rgb():
    grey, rgb = IMAGES[0, ..., 0], IMAGES[0]
    palette = Image.fromarray(rgb).quantize(12)
    cases = [
        (Image.fromarray(grey), grey[..., None]),
        (Image.fromarray(grey).convert("LA"), grey[..., None]),
        (Image.fromarray(grey.astype(np.uint16) * 257), grey[..., None]),
        (Image.fromarray(rgb).convert("RGBA"), rgb),
        (palette, np.asarray(palette.convert("RGB"))),
    ]
    for image, expected in cases:
        np.testing.assert_array_equal(block_of([image], 0, 1).images[0], expected)


def test_a_list_of_pixels_is_an_image_still():
    two_rows = IMAGES[0][:2].tolist()
    source = [two_rows]
    with pytest.raises(
        ValueError, match=r"row 0 of the source: image must be uint8, or float .* got int64"
    ) as error:
        block_of(source, 0, 1)
    converted = [eval(remedy(error), {"numpy": np, "image": source[0]})]
    np.testing.assert_array_equal(block_of(converted, 0, 1).images[0], two_rows)


def remedy(error) -> str:
    """The expression that a message recommends."""
    return re.search(r"(numpy\.(moveaxis|asarray)\(|image\[).*$", str(error.value)).group()


@pytest.mark.parametrize(
    "image", [IMAGES[0, ..., 0], np.zeros((3, 4, 5), np.uint8), np.zeros((4, 3, 4), np.uint8)]
)
def test_the_remedy_for_a_shape_works(image):
    with pytest.raises(ValueError, match="row 0 of the source: the image must be") as error:
        block_of([image], 0, 1)
    mended = eval(remedy(error), {"numpy": np, "image": image})
    assert block_of([mended], 0, 1).images.shape in ((1, 4, 3, 1), (1, 4, 5, 3), (1, 4, 3, 3))


def test_a_batch_for_a_row_is_refused_with_what_takes_one():
    with pytest.raises(ValueError, match=r"has \[5, 4, 3, 3\], which are many .*ImageSource"):
        block_of((IMAGES, LABELS), 0, 1)


def test_a_split_of_hugging_face():
    datasets = pytest.importorskip("datasets")
    features = {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    pictures = {"img": [Image.fromarray(image) for image in IMAGES], "label": LABELS.tolist()}
    split = datasets.Dataset.from_dict(pictures, features=datasets.Features(features))
    with pytest.raises(ValueError, match=r"source\.rename_column\(name, 'image'\)"):
        block_of(split)
    split = split.rename_column("img", "image")
    for source in (split, split.with_format("numpy")):
        assert random_access.spec(source, caller="f") == (5, (4, 3, 3), "uint8", ("cat", "dog"))
        block = block_of(source)
        np.testing.assert_array_equal(block.images, IMAGES)
        np.testing.assert_array_equal(block.labels, LABELS)
    with pytest.raises(ValueError, match=r"splits 'test', 'train'; .* source\['test'\]"):
        block_of(datasets.DatasetDict({"test": split, "train": split}))
    with pytest.raises(ValueError, match="Collect what it yields in a list"):
        block_of(split.to_iterable_dataset(), 0, 1)


def test_sources_of_grain():
    grain = pytest.importorskip("grain")
    entries = [{"image": i, "label": n} for i, n in zip(IMAGES, LABELS, strict=True)]
    encoded = grain.MapDataset.source([image.tobytes() for image in IMAGES])
    decoded = encoded.map(lambda row: np.frombuffer(row, np.uint8).reshape(IMAGES.shape[1:]))
    for source in (grain.MapDataset.source(entries), decoded):
        block = block_of(source, 1, 4)
        np.testing.assert_array_equal(block.images, IMAGES[1:4])
    with pytest.raises(ValueError, match="encoded, 36 bytes; decode it"):
        block_of(encoded)
    assert isinstance(entries, grain.sources.RandomAccessDataSource)


def test_photographs_are_turned_upright():
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = image.getexif()
    exif[274] = 6  # to be turned by a quarter
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    with Image.open(buffer) as opened:
        pixels = random_access._pixels(opened, "row 0")
    assert pixels.shape == (3, 2, 1)
    np.testing.assert_array_equal(pixels[..., 0], [[3, 0], [4, 1], [5, 2]])


def test_grey_with_premultiplied_transparency_is_grey():
    image = Image.new("LA", (2, 2), (100, 255)).convert("La")
    np.testing.assert_array_equal(random_access._pixels(image, "row 0"), np.full((2, 2, 1), 100))
