"""Images in and out: sources, records, augmentation."""

from outgen_jax.data import augment as augment
