"""Two equal calls in a process of its own, in processor time."""

import time

import jax
import numpy as np

import outgen_jax as og
from outgen_jax.data import sources


def measure(cache: str, images: int) -> list[float]:
    """Processor seconds of the first call in this process, and of the second."""
    jax.config.update("jax_compilation_cache_dir", cache)  # as JAX_COMPILATION_CACHE_DIR does
    classifier = og.models.pretrained.load("mnist_lenet")
    network = og.models.from_nnx(classifier.model)
    digits = sources.digits(size=(28, 28), limit=images).images
    target = np.zeros(10)
    target[:2] = 0.9, 0.1
    seconds = []
    for _ in range(2):
        before = time.process_time()
        og.synthesize(*network, digits, target)
        seconds.append(time.process_time() - before)
    return seconds
