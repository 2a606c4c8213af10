"""A small problem that the tests of `synthesize` share: network, images, targets, comparison."""

import numpy as np
import optax
import reference

import outgen_jax as og

SHAPE, CLASSES = (8, 6, 3), 5
WEIGHTS = reference.perceptron(SHAPE)
APPLY = reference.perceptron_logits
FAST = og.gradient_descent(optax.sgd(0.5), steps=12)


def sources(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), np.uint8)


def targets(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(CLASSES), count).astype(np.float32)


def rows_of(result: og.Result, chosen) -> og.Result:
    return og.Result(*(None if field is None else field[chosen] for field in result))


def assert_same(actual: og.Result, expected: og.Result, atol: float = 1e-5) -> None:
    for name, a, b in zip(og.Result._fields, actual, expected, strict=True):
        if b is not None:
            np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4, err_msg=name)
