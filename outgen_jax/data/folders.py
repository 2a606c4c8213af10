"""Folders of images: all in one folder, or one subfolder a class.

Images are uint8 RGB in 0..255, NHWC. Sizes are (height, width) in pixels.
"""

from pathlib import Path

import numpy as np

from outgen_jax.data.image_source import (
    ImageSource,
    PathLike,
    Size,
    check_options,
    eight_bits,
    fit,
    store,
)

# What operating systems and network drives leave in folders of pictures, in lower case.
_SYSTEM = {
    *("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}


def from_folder(
    path: PathLike, *, size: Size | None = None, limit: int | None = None
) -> ImageSource:
    """Reads a folder of images: all in one folder, or one subfolder a class.

    Images are turned upright (EXIF), converted to RGB (transparency dropped, 16 bits brought to 8)
    and, with `size`, resized (antialiased bicubic) to cover (height, width) and centre-cropped.
    Classes are the subfolders that hold an image, in sorted order; ids are paths below `path`,
    images sorted by them. The content of a file decides what it is, not its suffix. Hidden files
    and those of the operating system (`__MACOSX`, `Thumbs.db`) are left out; other files that are
    not readable images are named in `skipped`.

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog", "notes"):
    ...     (root / name).mkdir()
    >>> Image.new("RGB", (4, 4)).save(root / "cat" / "1.png")
    >>> Image.new("RGB", (4, 4)).save(root / "dog" / "1.PNG")
    >>> source = from_folder(root)
    >>> source.class_names, source.ids, source.skipped
    (('cat', 'dog'), ('cat/1.png', 'dog/1.PNG'), ('notes: a folder without images',))

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no readable image, or images of several sizes and no `size`.
    """
    check_options("from_folder", size, limit)
    root = Path(path).expanduser()
    if root.is_file():
        raise ValueError(
            f"from_folder: {str(root)!r} is a file; give the folder that it is in, "
            f"{str(root.parent)!r}"
        )
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
        raise ValueError(_nothing_to_read(root, skipped))
    labels = None
    if class_names is not None:
        index_of = {name: index for index, name in enumerate(class_names)}
        labels = np.array([index_of[name.split("/")[0]] for name in ids], np.int32)
    return ImageSource(images[: len(ids)], labels, class_names, tuple(ids), tuple(skipped))


def _image_files(root: Path) -> tuple[list[Path], tuple[str, ...] | None, list[str]]:
    """Candidate files in order, the class names (None: a flat folder), and what is left out."""
    folders, loose, left_out = _entries(root, root)
    inside = {folder: _entries(folder, root) for folder in folders}
    classes = [folder for folder, (_, files, _) in inside.items() if any(map(_opens, files))]
    if not classes:
        left_out += [f"{folder.name}: a folder without images" for folder in folders]
        return loose, None, left_out
    left_out += [f"{path.name}: outside the class folders" for path in loose]
    for folder, (deeper, _, without) in inside.items():
        if folder in classes:
            left_out += without
            left_out += [f"{folder.name}/{path.name}: a folder inside a class" for path in deeper]
        else:
            left_out.append(f"{folder.name}: a folder without images")
    files = [path for folder in classes for path in inside[folder][1]]
    return files, tuple(path.name for path in classes), left_out


def _entries(folder: Path, root: Path) -> tuple[list[Path], list[Path], list[str]]:
    """Folders and files directly in `folder`, sorted, and what is neither or cannot be listed."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        return [], [], [f"{folder.relative_to(root).as_posix()}: {_why(error)}"]
    paths = [p for p in paths if not p.name.startswith(".") and p.name.lower() not in _SYSTEM]
    folders, files, left_out = [], [], []
    for path in paths:
        if path.is_dir():
            folders.append(path)
        elif path.is_file():
            files.append(path)
        else:  # reading a pipe would wait for ever
            why = "a link to nothing" if path.is_symlink() else "not a file"
            left_out.append(f"{path.relative_to(root).as_posix()}: {why}")
    return folders, files, left_out


def _opens(path: Path) -> bool:
    """Whether Pillow knows the file for an image; its pixels are not decoded."""
    from PIL import Image

    try:
        with Image.open(path):
            return True
    except Exception:  # as in `from_folder`
        return False


def _nothing_to_read(root: Path, skipped: list[str]) -> str:
    """The message for a folder without a readable image, with what there is instead."""
    found = f"from_folder: no readable image in {str(root)!r}"
    deeper = next((p for p in sorted(root.glob("*/*/*")) if p.is_file() and _opens(p)), None)
    if deeper is not None:
        folder = str(deeper.parent.parent)
        return f"{found} or the folders in it, but in {str(deeper.parent)!r}; give {folder!r}"
    if skipped:
        found += f" ({len(skipped)} entries skipped, the first: {skipped[0]})"
    return f"{found}; put PNG, JPEG or other files that Pillow reads into it"


def _read(path: Path, size: Size | None) -> np.ndarray:
    """Any image file as upright RGB [H, W, 3] uint8."""
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        image = eight_bits(ImageOps.exif_transpose(opened)).convert("RGB")
        return np.asarray(fit(image, size))


def _why(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow reads"
    return f"{type(error).__name__}: {error}".splitlines()[0]
