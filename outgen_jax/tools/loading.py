"""The network and the images that a program begins with."""

from typing import NamedTuple

from outgen_jax.data import sources
from outgen_jax.models import pretrained
from outgen_jax.names import printable

_SMALL = 32  # pixels: larger images are for ImageNet's network, where none is named
_LARGE_IMAGES = "efficientnet_lite0"


class Loaded(NamedTuple):
    """A network and the images for it, of its size and channels."""

    classifier: pretrained.Pretrained
    source: sources.ImageSource


def load(
    images: str, *, split: str, data_dir: str | None, limit: int | None, classifier: str | None
) -> Loaded:
    """Loads both, and prints what was done to the images and which files were left out.

    Args:
      images: as `sources.load` takes them.
      split: of a tfds data set.
      data_dir: of prepared tfds data sets.
      limit: images at most; None: all.
      classifier: as `pretrained.load` takes it. None: the first shipped network for images of at most 32×32 pixels,
        else EfficientNet-Lite0.

    Raises:
      FileNotFoundError, ValueError: as `sources.load` and `pretrained.load`.
    """
    first = sources.load(images, split=split, data_dir=data_dir, limit=1)
    height, width, channels = first.images.shape[1:]
    if classifier is None:
        classifier = pretrained.SHIPPED[0] if max(height, width) <= _SMALL else _LARGE_IMAGES
    found = pretrained.load(classifier)
    size = (found.image_size, found.image_size)
    source = sources.load(images, split=split, data_dir=data_dir, size=size, limit=limit)
    # The photographs of the package are cut to any size from larger ones.
    if images != "photographs" and (height, width, channels) != (*size, found.channels):
        print(
            f"images of {height}x{width} pixels (height x width) and {channels} channels are brought to "
            f"{size[0]}x{size[1]} and {found.channels}, for {classifier}"
        )
    for skipped in source.skipped:
        print(f"skipped {printable(skipped)}")
    if source.skipped:
        print(f"{len(source.skipped)} unreadable files skipped, {len(source.ids)} images read")
    return Loaded(found, source.with_channels(found.channels))
