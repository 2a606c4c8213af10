"""Images and networks of the study of paper D: CIFAR-10 and its like in memory, ImageNet read from files.

Images are uint8 [N, H, W, C]. ImageNet's are brought to the network's size as torchvision does for its accuracies:
the shorter side to 256/224 of it, then a centre crop.
"""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from PIL import Image

from outgen_jax import runs
from outgen_jax.data import sources
from outgen_jax.data.image_source import fit
from outgen_jax.models import VGG16, pretrained, vgg_imagenet
from outgen_jax.models.efficientnet_lite_imagenet import imagenet_classes

_READERS = 8  # threads that decode


class Split(NamedTuple):
    """Images with their labels."""

    images: Any  # numpy array, or a reader of files with the same `len` and `[rows]`
    labels: np.ndarray  # [N] int32, in the order of the network's outputs

    def part(self, start: int, stop: int) -> "Split":
        """Images `start` to `stop`, read into memory where they are few."""
        rows = np.arange(start, stop)
        images = self.images[start:stop] if isinstance(self.images, np.ndarray) else None
        return Split(Rows(self.images, rows) if images is None else images, self.labels[start:stop])


class Rows:
    """Some rows of a reader of files."""

    def __init__(self, images: Any, rows: np.ndarray) -> None:
        self._images, self._rows = images, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self._images[self._rows[rows]]


class EncodedImages:
    """PNG or JPEG files, or records that hold such, decoded when asked for."""

    def __init__(self, items: Sequence[Any], size: int) -> None:
        """`items`: paths, or dictionaries with the file's bytes under 'image'."""
        self._items, self._size = items, size
        self._pool = ThreadPoolExecutor(_READERS)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack(list(self._pool.map(self._decode, rows)))

    def _decode(self, row: int) -> np.ndarray:
        item = self._items[int(row)]
        file = item if isinstance(item, Path) else io.BytesIO(item["image"])
        try:
            with Image.open(file) as image:
                return centre_crop(image.convert("RGB"), self._size)
        except OSError as error:
            where = item if isinstance(item, Path) else f"record {row}"
            raise ValueError(
                f"{where} cannot be read ({error}); leave it out or replace it"
            ) from None


def centre_crop(image: Any, size: int) -> np.ndarray:
    """Pillow's image -> [size, size, 3] uint8: shorter side to 256/224 of the size, then the centre."""
    wide = round(size * 256 / 224)
    edge = (wide - size) // 2
    return np.asarray(fit(image, (wide, wide)))[edge : edge + size, edge : edge + size]


def load_splits(
    dataset: str,
    data_dir: str | None,
    class_names: Sequence[str] | None,
    size: int,
    cache: Callable[[], Path],
) -> tuple[Split, Split, tuple[str, ...]]:
    """(training set, test set, class names) with labels as the network counts them.

    Args:
      dataset: tfds name, .npz, class folders, or a directory with train/ and val/ of such.
      data_dir: of prepared tfds data sets.
      class_names: the network's outputs; None: the network is yet to be trained, and takes the data's.
      size: side of the network's images in pixels.
      cache: gives the directory where labels may be kept; called only for data sets that need it.
    """
    root = Path(dataset).expanduser()
    if (root / "train").is_dir():
        found = [folder_split(root / name, size) for name in ("train", "val")]
    elif dataset.startswith("imagenet2012"):
        found = [
            tfds_split(dataset, name, data_dir, size, cache) for name in ("train", "validation")
        ]
    else:
        found = memory_splits(dataset, data_dir, size)
    (train, names), (test, test_names) = found
    wanted = names if class_names is None else class_names
    train, test = (
        split._replace(labels=matching_classes(given, wanted)[split.labels])
        for split, given in ((train, names), (test, test_names))
    )
    return train, test, tuple(wanted)


def matching_classes(found: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """For each class of the data, its place among the network's outputs [classes of the data].

    Raises:
      ValueError: classes that the network does not have. ImageNet's folders, named by WordNet ids, count as the
        1,000 outputs in sorted order, if all 1,000 are there.
    """
    if set(found) <= set(wanted):
        return np.array([list(wanted).index(name) for name in found], np.int32)
    ids = [name for name in found if len(name) == 9 and name[0] == "n" and name[1:].isdigit()]
    if len(ids) == len(found) == len(wanted) == 1000:
        return np.argsort(np.argsort(found)).astype(np.int32)
    unknown = [name for name in found if name not in set(wanted)]
    raise ValueError(
        f"the data have {len(found)} classes and the network {len(wanted)}; {len(unknown)} of the data's are not the "
        f"network's, e.g. {', '.join(map(repr, unknown[:3]))}. Name the folders as the network's classes "
        f"({', '.join(map(repr, list(wanted)[:3]))}, ...), or give all 1,000 of ImageNet by their WordNet ids"
    )


def folder_split(root: Path, size: int) -> tuple[Split, tuple[str, ...]]:
    """One subfolder a class; the images in a fixed random order, as an array of rows is cut."""
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {str(root)!r}; expected train/ and val/, one subfolder a class each"
        )
    names = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != "."))
    files = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((root / name).iterdir())
        if file.is_file() and file.name[0] != "."
    ]
    if not files:
        raise ValueError(f"no images in {str(root)!r}; expected one subfolder a class")
    order = np.random.default_rng(0).permutation(len(files))
    labels = np.array([files[i][1] for i in order], np.int32)
    return Split(EncodedImages([files[i][0] for i in order], size), labels), names


def tfds_split(
    dataset: str, split: str, data_dir: str | None, size: int, cache: Callable[[], Path]
) -> tuple[Split, tuple[str, ...]]:
    """A prepared tfds split, decoded when asked for; its labels, a pass over all records, are kept in `cache`."""
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    builder = tfds.builder(dataset, data_dir=data_dir)
    records = builder.as_data_source(split=split, decoders=decoders)

    def all_labels() -> dict[str, np.ndarray]:
        return {"labels": np.array([record["label"] for record in records], np.int32)}

    labels = runs.kept(cache() / f"labels_{split}.npz", all_labels)["labels"]
    names = tuple(builder.info.features["label"].names)
    return Split(EncodedImages(records, size), labels), names


def memory_splits(
    dataset: str, data_dir: str | None, size: int
) -> list[tuple[Split, tuple[str, ...]]]:
    """Training and test set of a tfds name; of a source without splits, a fifth is the test set.

    The images of such a source are put in a fixed random order, since they may be sorted by class.
    """

    def load(split: str) -> tuple[Split, tuple[str, ...]]:
        source = sources.load(dataset, split=split, data_dir=data_dir, size=(size, size))
        if source.labels is None or source.class_names is None:
            raise ValueError(
                f"--dataset={dataset} has no labels; use a tfds name, an .npz with labels or class folders"
            )
        return Split(source.images, source.labels), source.class_names

    if sources.has_splits(dataset):
        return [load("train"), load("test")]
    whole, names = load("all")
    count = len(whole.labels)
    order = np.random.default_rng(0).permutation(count)
    mixed = Split(whole.images[order], whole.labels[order])
    cut = count * 4 // 5
    return [(mixed.part(0, cut), names), (mixed.part(cut, count), names)]


def load_network(path: str, sha256: str | None) -> pretrained.Pretrained:
    """A name or .npz that `models.pretrained` knows, or torchvision's VGG-16 as a .pth file.

    `sha256` is that of the .pth; by default torchvision's own.
    """
    if not path.endswith((".pth", ".pt")):
        return pretrained.load(path)
    model = vgg_imagenet.load_torchvision(path, sha256=sha256 or vgg_imagenet.TORCHVISION_SHA256)
    return pretrained.Pretrained(model, imagenet_classes(), model.image_size, {"network": "VGG16"})


def begin_with_convolutions(model: VGG16, name: str) -> None:
    """Copies the convolutions of a pretrained VGG16 of equal width, with their normalisation."""
    found = pretrained.load(name).model
    assert isinstance(found, VGG16)
    nnx.update(model.blocks, nnx.state(found.blocks))
