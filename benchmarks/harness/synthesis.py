"""Paper A's SGD with any JAX network, as a user runs it: `og.synthesize`."""

from typing import Any

import jax
import numpy as np

import outgen_jax as og
from benchmarks.harness.alternation import Updates
from benchmarks.harness.steps import Steps
from outgen_jax.networks import ApplyFn


def updates(network: tuple[ApplyFn, Any], images: np.ndarray, targets: np.ndarray) -> Updates:
    """Updates of all images [B, H, W, C] at a time, to targets [B, K] of one softmax.

    `network` is `apply_fn, variables`.
    """
    apply_fn, variables = network

    def best(updates: int) -> np.ndarray:
        solver = og.preset("sgd", steps=updates)
        size = len(images)
        found = og.synthesize(apply_fn, variables, images, targets, solver=solver, batch_size=size)
        return found.images

    def memory() -> dict[str, int]:
        if jax.default_backend() == "cpu":
            steps = Steps((apply_fn, variables), og.preset("sgd"), images, targets)
            analysis = steps.compile().memory_analysis()
            assert analysis is not None
            return {"temporary": analysis.temp_size_in_bytes}
        statistics = jax.devices()[0].memory_stats() or {}
        return {"device_peak": statistics.get("peak_bytes_in_use", 0)}

    return Updates(best, device=jax.devices()[0].device_kind, images=best, memory=memory)
