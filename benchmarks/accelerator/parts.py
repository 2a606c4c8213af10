"""The parts of the campaign: each measures one thing, and returns named numbers."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import outgen_jax as og
from benchmarks.harness.alternation import Operations
from benchmarks.harness.steps import Steps
from benchmarks.harness.workload import CLASSES, Workload, bytes_per_pass, flops_per_update
from benchmarks.synthesis import ours
from outgen_jax.solvers.smallest_change import TRIALS
from outgen_jax.solvers.solver import Solver

# By name: the network's type, and the precision of products of float32.
ARITHMETICS = {
    "float32": ("float32", "highest"),
    "tensorfloat32": ("float32", "tensorfloat32"),
    "bfloat16": ("bfloat16", "bfloat16"),
}
# Passes of the network for one step of one image of ten classes.
SGD_PASSES = 2  # forward, backward
EXACT_PASSES = 1 + (CLASSES - 1) + 2 * TRIALS  # forward, a Jacobian, trials with their corrections
_ROUNDS = 5

Numbers = dict[str, Any]


def product(size: int, arithmetic: str) -> Numbers:
    """A matrix product of `size`³: the peak that programs can reach."""
    dtype, precision = ARITHMETICS[arithmetic]
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (size, size), jnp.dtype(dtype)) for key in keys)
    multiply = jax.jit(functools.partial(jnp.matmul, precision=precision))
    return {"flops": 2 * size**3, "seconds": _seconds(lambda: multiply(a, b))}


def stream(megabytes: int) -> Numbers:
    """A + s·b over vectors of so many MiB (McCalpin's triad): the bandwidth of the memory."""
    a, b = (jnp.full(megabytes * 2**18, value, jnp.float32) for value in (1, 2))
    triad = jax.jit(lambda a, b: a + 3 * b)
    return {"bytes": 3 * a.nbytes, "seconds": _seconds(lambda: triad(a, b))}


def steps(
    workload: Workload, solver: Solver, passes: int, arithmetic: str, *, updates: int
) -> Numbers:
    """A step of all images of a batch, with `updates` of them in a call.

    `flops` and `bytes` are counts by hand, of the network's passes. XLA's own count sees the body of a loop once, and
    not what a library for convolutions moves.
    """
    dtype, precision = ARITHMETICS[arithmetic]
    made = Steps(
        ours.network(workload, dtype),
        solver,
        workload.images(),
        workload.targets(),
        precision=precision,
        updates=updates,
    )
    start = time.perf_counter()
    compiled = made.compile()
    compile_seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    return {
        "images": workload.batch_size,
        "flops": passes * workload.batch_size * flops_per_update(workload.width) // SGD_PASSES,
        "bytes": passes
        * bytes_per_pass(workload.width, workload.batch_size, itemsize=jnp.dtype(dtype).itemsize),
        "temporary": memory.temp_size_in_bytes,
        "compile_seconds": compile_seconds,
        "seconds": made.seconds(compiled),
    }


def whole_call(workload: Workload, solver: Any, *, passes: int) -> Numbers:
    """`og.synthesize` of a batch from the host and back, twice: the first call compiles."""
    apply_fn, variables = ours.network(workload, "float32")
    images, targets = workload.images(), workload.targets()

    def call() -> tuple[float, og.Result]:
        start = time.perf_counter()
        found = og.synthesize(apply_fn, variables, images, targets, solver=solver)
        return time.perf_counter() - start, found

    (first, _), (second, found) = call(), call()
    flops_of_step = passes * flops_per_update(workload.width) // SGD_PASSES
    return {
        "images": workload.batch_size,
        "first_seconds": first,
        "seconds": second,
        "steps": int(found.steps.sum()),
        "flops": int(found.steps.sum()) * flops_of_step,
        "finite": float(found.finite.mean()),
        "converged": float(found.converged.mean()),
        "distance": float(np.median(found.distance)),
    }


def whole_set(workload: Workload, *, updates: int, data_dir: str | None) -> Numbers:
    """SGD on a set of images in bfloat16, with compilation."""
    made = ours.WholeSet(workload, dtype="bfloat16", data_dir=data_dir)
    steps = made.count * updates
    return {
        "images": made.count,
        "steps": steps,
        "flops": steps * flops_per_update(workload.width),
        "seconds": made.seconds(updates),
    }


def _seconds(function: Callable[[], Any]) -> list[float]:
    """Of a call, in each of some rounds."""
    timed = Operations({"it": function}, wait=jax.block_until_ready, to_array=np.asarray)
    return [timed.seconds("it") for _ in range(_ROUNDS)]
