r"""How long a set takes on accelerators, and what saturates first.

`og.generate_dataset` runs four things side by side, each with a rate of its own. The slowest sets the time:

.. math:: T = \max(T_\text{device}, T_\text{host}, T_\text{writer}, T_\text{disk})

Devices compute and exchange images with their host in turn, so those two add up. Every process has one thread that
drives its devices, and one that encodes and writes. Devices do not communicate while they compute.

Units: seconds, bytes, and operations (FLOP; a multiplication and an addition are two).
"""

import dataclasses
from typing import NamedTuple

FLOAT32 = 4  # bytes
# What `slots.Entry` and `slots.Exit` move: source and start to the device, the best and the last image back.
MOVED_IMAGES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """Accelerators and their hosts.

    Attributes:
      accelerators: in all.
      per_host: accelerators of a host, which has one process.
      peak: operations a second of an accelerator.
      sustained: the share of it that is reached, in (0, 1].
      link: bytes a second between an accelerator and its host.
      disk: bytes a second that a host writes.
    """

    accelerators: int
    per_host: int
    peak: float
    sustained: float
    link: float
    disk: float

    @property
    def hosts(self) -> int:
        """Hosts, and processes."""
        return -(-self.accelerators // self.per_host)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """A set to be made.

    Attributes:
      images: how many.
      values: numbers of an image, H·W·C.
      passes: of the network for an image, in all steps.
      flops: of a pass of one image.
      host_seconds: of a core, to hand an image to a device and take it back.
      writer_seconds: of a core, to encode an image and write it.
      stored: bytes of an image on disk.
    """

    images: int
    values: int
    passes: float
    flops: float
    host_seconds: float
    writer_seconds: float
    stored: float


class Times(NamedTuple):
    """Seconds of what runs side by side; `link` is the part of `device` in which images move."""

    device: float
    host: float
    writer: float
    disk: float
    link: float

    @property
    def limit(self) -> str:
        """The slowest of what runs side by side."""
        return max(("device", "host", "writer", "disk"), key=lambda name: getattr(self, name))


def times(work: Work, machine: Machine) -> Times:
    """Seconds of each, for the whole set."""
    link = transfer(work, machine)
    return Times(
        device=computation(work, machine) + link,
        host=work.images * work.host_seconds / machine.hosts,
        writer=work.images * work.writer_seconds / machine.hosts,
        disk=work.images * work.stored / (machine.disk * machine.hosts),
        link=link,
    )


def computation(work: Work, machine: Machine) -> float:
    """Images · passes · FLOP / (accelerators · share · peak)."""
    rate = machine.accelerators * machine.sustained * machine.peak
    return work.images * work.passes * work.flops / rate


def transfer(work: Work, machine: Machine) -> float:
    """Each accelerator has a link of its own, and images are float32 on it."""
    moved = MOVED_IMAGES * FLOAT32 * work.values
    return work.images * moved / (machine.accelerators * machine.link)


def kept_for_backward(layers: list[tuple[int, int]]) -> int:
    """Bytes that a forward pass keeps for its gradient in one image: every layer's output, in float32.

    Args:
      layers: (output channels, side of the map) of each.
    """
    return FLOAT32 * sum(channels * size**2 for channels, size in layers)
