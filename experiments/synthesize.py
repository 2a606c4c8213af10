"""Changes images until a classifier returns the output that you ask for: `outgen_jax.tools.synthesize`."""

from absl import flags

from outgen_jax import scripts
from outgen_jax.tools import synthesize

__doc__ = synthesize.__doc__  # what --help shows
flags.adopt_module_key_flags(synthesize)

if __name__ == "__main__":
    scripts.start(synthesize.main)
