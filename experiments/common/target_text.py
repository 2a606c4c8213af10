"""Target texts of flags."""

from typing import Any

import numpy as np

import outgen_jax as og


def parse_full(text: str, **options: Any) -> np.ndarray:
    """The targets [N, K] of a text in which every class has a probability; options as `og.targets.parse` has them.

    Raises:
      ValueError: the text cannot be read, or it leaves classes free.
    """
    found = og.targets.parse(text, **options)
    if np.ma.isMaskedArray(found):
        raise ValueError(
            f"targets {text!r}: 'rest' cannot be used here, every class needs a probability; use 'uniform', or name "
            "the classes"
        )
    return found
