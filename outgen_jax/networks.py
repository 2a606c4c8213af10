"""The type of a network: a pure function of its variables and a batch of images."""

from collections.abc import Callable
from typing import Any

import jax

ApplyFn = Callable[[Any, jax.Array], Any]
"""A network: (variables, images [B, H, W, C] float32 in [0, 1]) -> outputs.

Outputs are an array [B, ..., K], such as logits [B, K], or a pytree of such arrays. The variables are a pytree of
arrays. They are passed in, never closed over, so new weights do not compile again.
"""
