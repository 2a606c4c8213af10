"""Trains a classifier and exports its weights: `outgen_jax.tools.train_classifier`."""

from absl import flags

from outgen_jax import scripts
from outgen_jax.tools import train_classifier

__doc__ = train_classifier.__doc__  # what --help shows
flags.adopt_module_key_flags(train_classifier)

if __name__ == "__main__":
    scripts.start(train_classifier.main)
