"""Images in and out: sources, records, augmentation, distortion."""

from outgen_jax.data import augment as augment
from outgen_jax.data import distort as distort
