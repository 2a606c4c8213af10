"""Makes a data set of images with prescribed outputs: `outgen_jax.tools.generate_dataset`."""

from absl import flags

from outgen_jax import scripts
from outgen_jax.tools import generate_dataset

__doc__ = generate_dataset.__doc__  # what --help shows
flags.adopt_module_key_flags(generate_dataset)

if __name__ == "__main__":
    scripts.start(generate_dataset.main)
