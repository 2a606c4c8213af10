"""How many slots the images of a call get: a program with fewer slots is compiled only where it pays.

Every number of slots is a program of its own, and compiling one takes seconds to minutes. Without it, few images are at
work in many slots. As in the ski rental problem, the program is compiled once as much work has been wasted as compiling
costs. Both are counted in backward passes of the network, not in seconds: the same call then always runs the same
programs, so its results are the same to the bit.
"""

# Work that costs about as much as compiling a program, in backward passes. In a trial on two CPU cores, the program of
# `smallest_change` cost about 7,000 with a VGG16 of half width, and 12,000 with LeNet. The value for accelerators is a
# guess: they make more passes in that time.
_WORTH_ON_CPU = 5_000
_WORTH_ON_ACCELERATOR = 1_000_000
# Each number of slots is about a fourth of the next larger one, and not below `_FEW`.
_SHRINK = 4
_FEW = 4


class SlotSizes:
    """The numbers of slots of one solver in one call, and which of them have been used."""

    def __init__(self, sizes: list[int], *, on_cpu: bool = True) -> None:
        """`sizes` ascend; see `ladder`."""
        self._sizes = sizes
        self._worth = _WORTH_ON_CPU if on_cpu else _WORTH_ON_ACCELERATOR
        self._used: set[int] = set()
        self._wasted = 0

    def first(self, count: int) -> int:
        """The number of slots for `count` images that a solver starts with."""
        fitting = smallest(self._sizes, count)
        larger = [size for size in self._used if size >= fitting]
        return self._taken(min(larger) if larger and self._wasted < self._worth else fitting)

    def next(self, size: int, working: int, passes: int) -> int:
        """The number of slots for `working` images, after so many passes in each of `size` slots."""
        fitting = smallest(self._sizes, working)
        if fitting >= size:
            return size
        self._wasted += (size - fitting) * passes
        pays = fitting in self._used or self._wasted >= self._worth
        return self._taken(fitting) if pays else size

    def _taken(self, size: int) -> int:
        if size not in self._used:
            self._used.add(size)
            self._wasted = 0
        return size


def rounded(count: int) -> int:
    """`count` up to 8; else the next of 10, 12, 14, 16, 20, 24, 28, 32, 40 and so on, at most a quarter more.

    >>> [rounded(count) for count in (5, 9, 33, 37, 64, 65)]
    [5, 10, 40, 40, 64, 80]
    """
    unit = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // unit) * unit


def ladder(largest: int, *, devices: int) -> list[int]:
    """The numbers of slots that there are programs for, smallest first; multiples of the number of devices.

    >>> ladder(128, devices=1)
    [4, 8, 32, 128]
    """
    sizes = [largest]
    while sizes[0] > _FEW and sizes[0] > devices:
        fewer = max(_FEW, sizes[0] // _SHRINK)
        sizes.insert(0, devices * -(-fewer // devices))
        if sizes[0] >= sizes[1]:
            return sizes[1:]
    return sizes


def smallest(sizes: list[int], count: int) -> int:
    """The smallest of `sizes`, which ascend, that holds `count` images; the last one if none does."""
    return next((size for size in sizes if size >= count), sizes[-1])
