"""Images in and out: sources, records, augmentation, distortion."""

from outgen_jax.data import augment as augment
from outgen_jax.data import augmented_set as augmented_set
from outgen_jax.data import differentiable_augment as differentiable_augment
from outgen_jax.data import distort as distort
from outgen_jax.data import sources as sources
from outgen_jax.data.grey_levels import to_uint8 as to_uint8
