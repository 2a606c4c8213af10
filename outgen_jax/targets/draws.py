"""Draws for an image: they depend on the seed and the image's id, not on the other images.

Ids are text here; the numbers drawn are a hash, the same on every platform and in every numpy.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

ImageIds = Sequence[int | str | bytes] | np.ndarray


def id_texts(image_ids: ImageIds | None, num_images: int, *, caller: str) -> list[str]:
    """The ids as text, so that a number read from a file is the number held in memory."""
    ids = range(num_images) if image_ids is None else image_ids
    if len(ids) != num_images:
        raise ValueError(
            f"{caller}: image_ids must hold one id per image; it holds {len(ids)} for {num_images} "
            "images. Add or remove ids"
        )
    return [
        name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)
        for name in ids
    ]


def id_digests(seed: int, purpose: str, ids: Iterable[str], *, caller: str) -> Iterator[bytes]:
    """16 bytes per id that are random in the seed, the purpose and the id."""
    if not isinstance(seed, int | np.integer):
        raise ValueError(
            f"{caller}: seed must be an integer; it is a {type(seed).__name__}. Give one such as 0"
        )
    for name in ids:
        # A file name that is not UTF-8 reaches Python with lone surrogates: no reason to stop.
        message = f"{int(seed)}:{purpose}:{name}".encode("utf-8", "surrogatepass")
        yield hashlib.blake2b(message, digest_size=16).digest()


def distinct_classes(
    count: int,
    num_classes: int,
    avoided: Sequence[np.ndarray],
    *,
    seed: int,
    ids: Sequence[str],
    caller: str,
) -> list[np.ndarray]:
    """`count` distinct classes per image, uniform among those not avoided, int64 [n] each.

    Raises:
      ValueError: fewer than `count` classes are left on some image.
    """
    taken = np.array(avoided, dtype=np.int64).reshape(len(avoided), len(ids))
    draws: list[np.ndarray] = []
    for number in range(count):
        # Sorted and rid of repeats (now the sentinel K), so that a draw among the free classes
        # becomes a class by stepping over the taken ones, lowest first.
        taken.sort(axis=0)
        taken[1:][taken[1:] == taken[:-1]] = num_classes
        taken.sort(axis=0)
        free = num_classes - (taken < num_classes).sum(axis=0)
        full = np.flatnonzero(free < 1)
        if full.size:
            raise ValueError(
                f"{caller}: no class is left for 'random' number {number + 1} on image "
                f"{ids[full[0]]!r}; the text names or has drawn all {num_classes}. Drop a 'random'"
            )
        digests = id_digests(seed, f"random {number}", ids, caller=caller)
        bits = np.frombuffer(b"".join(digests), "<u8")[::2]
        draw = (bits % free.astype(np.uint64)).astype(np.int64)
        for classes in taken:
            draw += draw >= classes
        draws.append(draw)
        taken = np.concatenate([taken, draw[None]])
    return draws
