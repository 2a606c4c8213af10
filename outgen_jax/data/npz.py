"""Images in .npz files, as numpy.savez writes them; nothing is unpickled."""

from pathlib import Path

import numpy as np

from outgen_jax import image_checks
from outgen_jax.data import grey_levels
from outgen_jax.data.image_source import ImageSource, PathLike, Size, check_options, fit_all

_Arrays = dict[str, np.ndarray]


def from_npz(path: PathLike, *, size: Size | None = None, limit: int | None = None) -> ImageSource:
    """Reads an .npz file: `images`, and optionally `labels`, `class_names` and `ids`.

    `images` [N, H, W, C] are uint8, or floats in [0, 1], which are rounded to the nearest of the
    256 levels. `labels` [N] are integers; `class_names` [K] and `ids` [N] strings.

    Args:
      path: of the file.
      size: (height, width) to bring every image to; None: as stored.
      limit: keep the first `limit` images; None: all.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not an .npz file, or an array of it has the wrong shape, type or range.
    """
    check_options("from_npz", size, limit)
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"from_npz: no file {str(file)!r}; check the path")
    arrays = _arrays(file)
    where = f"from_npz: {str(file)!r}"
    images = _images(arrays, limit, where)
    try:
        count = len(arrays["images"])
        class_names = _names(arrays, "class_names", None)
        ids = _names(arrays, "ids", count) or tuple(str(row) for row in range(count))
        labels = _labels(arrays, count, class_names)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if labels is not None:
        labels = labels[:limit].astype(np.int32)
    return ImageSource(fit_all(images, size), labels, class_names, ids[:limit])


def _arrays(file: Path) -> _Arrays:
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except Exception as error:  # a damaged archive may raise anything
        remedy = "copy it again, or write it anew with numpy.savez"
        if "allow_pickle" in str(error):
            remedy = "store text as array.astype(str), and no other arrays of Python objects"
        raise ValueError(f"from_npz: {str(file)!r} cannot be read ({error}); {remedy}") from error


def _images(arrays: _Arrays, limit: int | None, where: str) -> np.ndarray:
    if "images" not in arrays:
        raise ValueError(
            f"{where}: expected an array 'images'; it has {', '.join(arrays) or 'none'}"
        )
    images = arrays["images"]
    image_checks.check_batch(images, caller=where, least=1, channels=(1, 3))
    image_checks.check_floats_or_uint8(images, caller=where)
    images = images[:limit]
    if images.dtype != np.uint8:
        image_checks.check_range(images, caller=where)
    return grey_levels.to_uint8(images)


def _names(arrays: _Arrays, key: str, count: int | None) -> tuple[str, ...] | None:
    if key not in arrays:
        return None
    shape, names = arrays[key].shape, tuple(arrays[key].ravel().astype(str).tolist())
    different = len(set(names))
    if len(shape) != 1 or different != len(names) or count not in (None, len(names)):
        raise ValueError(
            f"{key!r} must be {count or 'a list of'} different names; got shape {shape}, "
            f"{different} of them different"
        )
    return names


def _labels(arrays: _Arrays, count: int, class_names: tuple[str, ...] | None) -> np.ndarray | None:
    if "labels" not in arrays:
        return None
    labels = arrays["labels"]
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"'labels' must be {count} integers, one per image; got {labels.dtype} of shape "
            f"{labels.shape}{_labels_remedy(labels, count)}"
        )
    classes = len(class_names) if class_names is not None else np.iinfo(np.int32).max
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"'labels' must lie in 0..{classes - 1}; they span {labels.min()} to {labels.max()}. "
            "Count classes from 0, and name all of them in 'class_names'"
        )
    return labels


def _labels_remedy(labels: np.ndarray, count: int) -> str:
    """What to store instead of labels of another form, where that can be seen."""
    if labels.shape == (count, 1):
        return ". Store labels[:, 0]"
    if labels.ndim == 2 and len(labels) == count:
        return ". Of a row per class, store numpy.argmax(labels, 1)"
    if labels.shape == (count,) and labels.dtype.kind in "bf":
        return ". Store labels.astype(int)"
    if labels.shape == (count,) and labels.dtype.kind in "SU":
        return ". Of names, store numpy.unique(labels, return_inverse=True)[1], and the others as class_names"
    return ". Leave 'labels' out if there are none"
