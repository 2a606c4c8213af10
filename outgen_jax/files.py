"""Writing files so that a reader never sees half of one, what is in them, and their names."""

import io
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_IMAGE_SUFFIXES = re.compile(r"\.(png|jpe?g|jfif|bmp|gif|tiff?|webp|ppm|pgm)$", re.IGNORECASE)
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)  # by Windows
_RESERVED_NAMES = ("file", "allow_pickle")  # of numpy.savez's own arguments
_LONGEST = 180  # bytes of a name; file systems take 255, with counter and suffix


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` to `path` whole or not at all; text is written as UTF-8.

    The bytes go to a temporary file in the same directory, reach the disk (fsync) and then take the
    place of `path` in one `os.replace`. A failure or an interrupt leaves the old file as it was and
    nothing beside it.

    Raises:
      FileNotFoundError: the directory of `path` does not exist.
    """
    # A link is followed, as open() would: the file it names changes, the link stays.
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"write_atomic: no directory {str(target.parent)!r} to write {target.name!r} in; "
            "create it first"
        )
    content = data.encode() if isinstance(data, str) else data
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        # open() gives the permissions that the umask asks for; mkstemp would make it private.
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_temporary(path: Path) -> bool:
    """Whether it is a file that `write_atomic` was writing when its process was killed."""
    return re.fullmatch(r"\.[0-9a-f]{16}\.tmp", path.name) is not None


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike]) -> None:
    """Writes named arrays as a compressed .npz, whole or not at all; raises as `write_atomic`.

    Raises:
      ValueError: an array that would not come back as it is: of objects, of a type that is not numpy's own, such
          as bfloat16, or with a name that an .npz cannot hold.
    """
    found: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in found.items():
        if name in _RESERVED_NAMES or name.endswith(".npy"):
            raise ValueError(
                f"save_arrays: no array can have the name {name!r} in an .npz; choose another one"
            )
        if array.dtype.kind == "O" or array.dtype.isbuiltin == 2:
            remedy = "str" if array.dtype.kind == "O" else "numpy.float32"
            raise ValueError(
                f"save_arrays: {name!r} has the type {array.dtype}, which an .npz does not keep; convert it first with "
                f".astype({remedy})"
            )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **found)
    write_atomic(path, buffer.getvalue())


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """What `save_arrays` wrote; nothing is unpickled."""
    with np.load(path, allow_pickle=False) as saved:
        return dict(saved)


def png_bytes(image: np.ndarray) -> bytes:
    """A uint8 image [H, W, C], C 1 or 3, as PNG: lossless, the same bytes for the same pixels.

    Raises:
      ValueError: another type or shape.
    """
    from PIL import Image

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
        by_rank = {2: "a grey image is image[..., None]", 4: "write a batch image by image"}
        remedy = by_rank.get(image.ndim, "keep 1 or 3 of its channels")
        if image.dtype != np.uint8:
            remedy = "scale floats to 0..255, round them, and convert to uint8"
        raise ValueError(
            "png_bytes: expected uint8 [H, W, C] with C 1 or 3; got "
            f"{image.dtype} {list(image.shape)}; {remedy}"
        )
    buffer = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return buffer.getvalue()


def unique_file_names(names: Iterable[object], suffix: str) -> tuple[str, ...]:
    """File names for things that may be called anything, one each, different on every system.

    A name is the thing's own where that is safe. The suffix of an image is left out, and whatever
    is no letter, digit, '-', '_' or '.' becomes '_'. A name that is then taken, also where case
    does not count, gets a number: the first in the order of `names` keeps its own.

    Args:
      names: what the things are called, such as the ids of images; repeated ones are counted.
      suffix: of all files, such as '.png'.

    Returns:
      One file name for each of `names`, in their order.

    >>> unique_file_names(["frame.0001", "cat/1.png", "cat_1.jpg", "CAT:1"], ".png")
    ('frame.0001.png', 'cat_1.png', 'cat_1~2.png', 'CAT_1~3.png')
    """
    taken: set[str] = set()
    last: dict[str, int] = {}  # number of each stem
    found = []
    for name in names:
        stem = _safe_stem(str(name))
        number, unique = last.get(stem.casefold(), 1), stem
        while unique.casefold() in taken:
            number += 1
            unique = f"{stem}~{number}"
        last[stem.casefold()] = number
        taken.add(unique.casefold())
        found.append(unique + suffix)
    return tuple(found)


def _safe_stem(name: str) -> str:
    """A name for a file without its suffix that no file system refuses or reads as another."""
    # One of the two ways to write an accented letter, as some file systems know but one.
    stem = _IMAGE_SUFFIXES.sub("", unicodedata.normalize("NFC", name))
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in stem)
    stem = stem.encode()[:_LONGEST].decode(errors="ignore")
    stem = stem.rstrip(".")
    hidden = not stem or stem.startswith((".", "-")) or _RESERVED.match(stem)
    return f"_{stem}" if hidden else stem
