"""The examples in docstrings run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import outgen_jax
from outgen_jax import generation, outputs, report, solvers, synthesis, whole_numbers
from outgen_jax.data import image_source, sources, splits, value_range
from outgen_jax.models import adapters, keras_models
from outgen_jax.targets import names


def modules() -> list[str]:
    """Names of the modules of the main subject."""
    found = [m.__name__ for m in (adapters, keras_models, whole_numbers, names)]
    found += [m.__name__ for m in (image_source, sources, splits, value_range)]
    for package in (outputs, solvers, synthesis, generation, report):
        found += [m.name for m in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    return found


PUBLIC = ("exact", "gauss_newton", "gauss_newton_cg", "gradient_descent", "preset", "then")
PUBLIC += ("restarted", "synthesize", "predict", "quantize", "views")


@pytest.mark.parametrize("name", modules())
def test_examples_run(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.failed == 0


def test_public_functions_have_examples():
    for name in PUBLIC:
        assert ">>> " in getattr(outgen_jax, name).__doc__, name
    for name in ("softmax", "sigmoid", "values"):
        assert ">>> " in getattr(outputs, name).__doc__
