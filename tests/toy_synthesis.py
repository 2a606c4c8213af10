"""A small problem that the tests of synthesis share: networks, images, targets, comparison, and what was compiled.

As a script it solves `examples` on as many devices as there are: python toy_synthesis.py OUT.npz
"""

import contextlib
import logging
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import reference
from jax.typing import ArrayLike

import outgen_jax as og
from outgen_jax.networks import ApplyFn
from outgen_jax.outputs import Output
from outgen_jax.solvers.objective import Objective
from outgen_jax.solvers.solver import Problem

SHAPE, CLASSES = (8, 6, 3), 5
WEIGHTS = reference.perceptron(SHAPE)
APPLY = reference.perceptron_logits
FAST = og.gradient_descent(optax.sgd(0.5), steps=12)


def sources(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), np.uint8)


def targets(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(CLASSES), count).astype(np.float32)


def linear(weights: jax.Array, images: jax.Array) -> jax.Array:
    """A network whose Jacobian is its weights: images [B, H, W, C] -> [B, K]."""
    return (images.reshape(len(images), -1) - 0.5) @ weights


def linear_weights(outputs: int, shape: tuple[int, ...] = SHAPE, seed: int = 7) -> jax.Array:
    """Weights of `linear` [H·W·C, K]."""
    scale = 4 / np.prod(shape) ** 0.5
    drawn = np.random.default_rng(seed).normal(0, scale, (int(np.prod(shape)), outputs))
    return jnp.asarray(drawn, jnp.float32)


def problem(
    apply_fn: ApplyFn,
    variables: object,
    target: ArrayLike,
    source: ArrayLike,
    kind: Output | None = None,
    count: int | None = None,
    tolerance: float = -1.0,
) -> Problem:
    """One image's problem with a target [K], as the engine would pose it to a solver."""
    objective = Objective(
        (jnp.asarray(target, jnp.float32)[None],), (kind or og.outputs.softmax(),), (count,)
    )
    return Problem(
        lambda image: (apply_fn(variables, image[None]),),
        objective,
        jnp.asarray(source, jnp.float32),
        jnp.float32(tolerance),
    )


def rows_of(result: og.Result, chosen: slice) -> og.Result:
    arrays = (
        "images",
        "distance",
        "divergence",
        "steps",
        "converged",
        "finite",
        "gave_up",
        "history",
    )
    rows = {n: getattr(result, n)[chosen] for n in arrays if getattr(result, n) is not None}
    outputs = jax.tree.map(lambda part: part[chosen], result.outputs)
    return result._replace(outputs=outputs, **rows)


def assert_same(actual: og.Result, expected: og.Result, atol: float = 1e-5) -> None:
    for name, a, b in zip(og.Result._fields, actual, expected, strict=True):
        if name != "meaning" and b is not None:
            for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
                np.testing.assert_allclose(x, y, atol=atol, rtol=1e-4, err_msg=name)


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """What JAX compiles meanwhile, one message a program."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "Compiling" in record.getMessage():
                found.append(record.getMessage())

    listener, logger = Listener(), logging.getLogger("jax")
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(listener)
    try:
        with jax.log_compiles():
            yield found
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagates


def examples() -> dict[str, np.ndarray]:
    """What the package makes of thirteen images with every part of it."""
    images, rows, found = sources(13), targets(13), {}
    solvers = {
        "descent": (FAST, 0.1),
        "all steps": (FAST, None),
        "combined": (og.then(FAST, og.gauss_newton(steps=6), at=0.1), 1e-4),
        "cg": (og.gauss_newton_cg(steps=3), 1e-4),
    }
    for name, (solver, tolerance) in solvers.items():
        options = {"solver": solver, "tolerance": tolerance, "batch_size": 2}
        result = og.synthesize(APPLY, WEIGHTS, images, rows, **options)
        found |= {f"{name} {field}": getattr(result, field) for field in ("images", "steps", "kl")}
    found["probs"] = og.predict(APPLY, WEIGHTS, images, batch_size=2)
    found["quantized"] = og.quantize(APPLY, WEIGHTS, found["combined images"], rows, batch_size=2)
    return found


if __name__ == "__main__":
    np.savez(sys.argv[1], **examples())
    print(jax.local_device_count(), "devices")
