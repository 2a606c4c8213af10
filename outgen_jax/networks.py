"""What the package calls a network: a pure function of its variables and a batch of images."""

from collections.abc import Callable
from typing import Any

import jax

# (variables, images [B, H, W, C] float32 in [0, 1]) -> outputs: an array [B, ..., K], such as logits [B, K], or a
# pytree of such arrays. The variables are a pytree of arrays; they are passed in, never closed over, so that new
# weights do not compile a new program.
ApplyFn = Callable[[Any, jax.Array], Any]
