"""Command-line programs for your own images and data, such as `python -m outgen_jax.tools.synthesize`.

They need the extra `scripts`.
"""

import importlib.util

if importlib.util.find_spec("absl") is None:  # only this extra brings it
    raise ModuleNotFoundError(
        "outgen_jax.tools needs the packages of the extra `scripts`: pip install 'outgen_jax[scripts]'"
    )
