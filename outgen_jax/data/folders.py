"""Folders of images: all in one folder, or one subfolder a class.

Images are uint8 RGB in 0..255, NHWC. Sizes are (height, width) in pixels.
"""

from pathlib import Path

import numpy as np

from outgen_jax.data.image_source import ImageSource, PathLike, Size, check_options, fit, store


def from_folder(
    path: PathLike, *, size: Size | None = None, limit: int | None = None
) -> ImageSource:
    """Reads a folder of images: all in one folder, or one subfolder a class.

    Images are turned upright (EXIF), converted to RGB (transparency dropped, 16 bits rounded to 8)
    and, with `size`, resized (antialiased bicubic) to cover (height, width) and centre-cropped.
    Classes are the subfolders in sorted order; ids are paths below `path`, images sorted by them.
    Hidden files are left out; what else is no readable image is named in `skipped`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no readable image, or images of several sizes and no `size`.
    """
    check_options("from_folder", size, limit)
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"from_folder: no folder {str(root)!r}; check the path")
    files, class_names, skipped = _image_files(root)
    most = len(files) if limit is None else min(limit, len(files))
    images: np.ndarray | None = None
    ids: list[str] = []
    for file in files:
        if len(ids) == most:
            break
        name = file.relative_to(root).as_posix()
        try:
            pixels = _read(file, size)
        except Exception as error:  # a damaged file may make Pillow's decoders raise anything
            skipped.append(f"{name}: {_why(error)}")
            continue
        images = store(images, len(ids), pixels, most, where=f"from_folder: {name!r}")
        ids.append(name)
    if images is None:
        raise ValueError(
            f"from_folder: no readable image in {str(root)!r} ({len(skipped)} entries skipped"
            + (f", the first: {skipped[0]}" if skipped else "")
            + "); expected PNG, JPEG or other files that Pillow reads"
        )
    labels = None
    if class_names is not None:
        labels = np.array([class_names.index(name.split("/")[0]) for name in ids], np.int32)
    return ImageSource(images[: len(ids)], labels, class_names, tuple(ids), tuple(skipped))


def _image_files(root: Path) -> tuple[list[Path], tuple[str, ...] | None, list[str]]:
    """Candidate files in order, the class names (None: a flat folder), and what is left out."""
    entries = _visible(root)
    classes = [path for path in entries if path.is_dir()]
    if not classes:
        return entries, None, []
    inside = [path for folder in classes for path in _visible(folder)]
    left_out = [f"{path.name}: outside the class folders" for path in entries if not path.is_dir()]
    left_out += [
        f"{path.relative_to(root).as_posix()}: a folder inside a class folder"
        for path in inside
        if path.is_dir()
    ]
    files = [path for path in inside if not path.is_dir()]
    return files, tuple(path.name for path in classes), left_out


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _read(path: Path, size: Size | None) -> np.ndarray:
    """Any image file as upright RGB [H, W, 3] uint8."""
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode in ("I", "F"):
            raise ValueError(f"pixels of mode {image.mode!r} have no fixed range; save as 8 bits")
        if image.mode.startswith("I;16"):  # Pillow's own conversion clips at 255
            image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
        if "transparency" in image.info:  # a palette's warns unless it goes through RGBA
            image = image.convert("RGBA")
        return np.asarray(fit(image.convert("RGB"), size))


def _why(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow reads"
    return f"{type(error).__name__}: {error}".splitlines()[0]
