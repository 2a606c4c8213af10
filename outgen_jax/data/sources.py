"""Where images come from: tfds directories, folders, .npz files, pictures that packages carry.

Every source is an `ImageSource`: images uint8 in 0..255, NHWC with 1 or 3 channels, decoded
straight into one array. Sizes are (height, width) in pixels. Nothing here downloads anything.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np

from outgen_jax.data.folders import from_folder as from_folder
from outgen_jax.data.image_source import ImageSource as ImageSource
from outgen_jax.data.image_source import PathLike, Size, check_options, fit, fit_all
from outgen_jax.data.npz import from_npz as from_npz
from outgen_jax.data.prepared import CIFAR10_CLASSES as CIFAR10_CLASSES
from outgen_jax.data.prepared import from_tfds as from_tfds
from outgen_jax.data.prepared import is_prepared

# File and square window (left, upper, right, lower), in pixels, that frames the subject.
_PHOTOGRAPHS = {
    "astronaut": ("astronaut.png", (30, 0, 410, 380)),
    "chelsea": ("chelsea.png", (75, 0, 375, 300)),
    "coffee": ("coffee.png", (70, 0, 470, 400)),
    "motorcycle": ("motorcycle_left.png", (120, 0, 620, 500)),
    "rocket": ("rocket.jpg", (160, 87, 500, 427)),
}


def load(
    spec: PathLike,
    *,
    split: str = "test",
    data_dir: PathLike | None = None,
    size: Size | None = None,
    limit: int | None = None,
) -> ImageSource:
    """Reads the images that `spec` names.

    Args:
      spec: one of

          - 'photographs' or 'digits': see the functions of these names,
          - a path ending in '.npz',
          - a directory, either one that tfds can read or a folder of images,
          - the name of a prepared tfds data set, such as 'cifar10'.
      split: of a tfds data set, slices included ('test[:100]'); other sources have no splits.
      data_dir: directory of tfds data sets; None: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      size: (height, width) to bring every image to, shorter side first, then a centre crop; None:
          as stored, and 224 x 224 for the photographs.
      limit: keep the first `limit` images; None: all.

    Raises:
      FileNotFoundError: nothing is there by that name.
      ValueError: what is there cannot be read as images, or an option is out of range.
    """
    text = os.fspath(spec)
    if not text:
        raise ValueError(
            "load: the name of the images is empty; give a folder, an .npz, or a data set"
        )
    path = Path(text).expanduser()
    if text == "photographs":
        return photographs(size=(224, 224) if size is None else size, limit=limit)
    if text == "digits":
        return digits(size=size, limit=limit)
    if path.suffix.lower() == ".npz":
        return from_npz(path, size=size, limit=limit)
    if path.is_dir() and not is_prepared(path):
        return from_folder(path, size=size, limit=limit)
    if path.is_file():
        raise ValueError(
            f"load: {text!r} is a file, and no .npz; give the folder that it is in, "
            f"{str(path.parent)!r}, if it is an image, or extract it first if it is an archive"
        )
    if _is_absent_folder(path, text):
        raise FileNotFoundError(f"load: no folder {text!r}; check the path")
    return from_tfds(text, split=split, data_dir=data_dir, size=size, limit=limit)


def has_splits(spec: PathLike) -> bool:
    """Whether `load` reads a tfds data set for `spec`; other sources have no splits.

    >>> has_splits("cifar10"), has_splits("digits"), has_splits("images.npz")
    (True, False, False)
    """
    path = Path(spec).expanduser()
    if os.fspath(spec) in ("photographs", "digits") or path.suffix.lower() == ".npz":
        return False
    return is_prepared(path) or not (path.exists() or _is_absent_folder(path, os.fspath(spec)))


def _is_absent_folder(path: Path, text: str) -> bool:
    """Whether a spec is written as a path, and no folder is there; names of data sets are not."""
    return not path.is_dir() and (path.is_absolute() or text.startswith("."))


def digits(*, size: Size | None = None, limit: int | None = None) -> ImageSource:
    """Scikit-learn's 1,797 handwritten digits: images [N, 8, 8, 1], ten classes.

    The 17 stored levels 0..16 become `rint(level * 255 / 16)`, the tie at level 8 (127.5) going to
    the even 128; ids are row numbers. (UCI Optical Recognition of Handwritten Digits, 1998.)
    """
    from sklearn.datasets import load_digits

    check_options("digits", size, limit)
    bunch = load_digits()
    images = np.rint(bunch.images[:limit, :, :, None] * (255 / 16)).astype(np.uint8)
    labels = bunch.target[:limit].astype(np.int32)
    ids = tuple(str(row) for row in range(len(images)))
    return ImageSource(fit_all(images, size), labels, tuple("0123456789"), ids)


def photographs(*, size: Size, limit: int | None = None) -> ImageSource:
    """Photographs that scikit-image's wheel carries, cropped around their subject: [5, H, W, 3].

    Ids: 'astronaut', 'chelsea' (a cat), 'coffee', 'motorcycle', 'rocket'; no labels. An ImageNet
    classifier names all but the astronaut, for whom ImageNet has no class. The files are read from
    the installed package, never fetched.

    Raises:
      FileNotFoundError: scikit-image is not installed, or this version lacks a photograph.
    """
    from PIL import Image

    check_options("photographs", size, limit)
    spec = importlib.util.find_spec("skimage")  # finds the package without importing it
    places = None if spec is None else spec.submodule_search_locations
    folder = Path(places[0]) / "data" if places else None
    ids = tuple(_PHOTOGRAPHS)[:limit]
    images = np.empty((len(ids), *size, 3), np.uint8)
    for row, name in enumerate(ids):
        file, window = _PHOTOGRAPHS[name]
        if folder is None or not (folder / file).is_file():
            raise FileNotFoundError(
                f"photographs: no {file!r} for {name!r} among scikit-image's files; "
                "`pip install scikit-image` (0.26 is known to carry it)"
            )
        with Image.open(folder / file) as image:
            images[row] = np.asarray(fit(image.convert("RGB").crop(window), size))
    return ImageSource(images, None, None, ids)
