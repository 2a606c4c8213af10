"""The examples in docstrings run and print what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

import outgen_jax
from outgen_jax import outputs

PACKAGE = Path(outgen_jax.__file__).parent


def modules() -> list[str]:
    """Names of the modules with an example."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]
    parts = [path.relative_to(PACKAGE.parent).with_suffix("").parts for path in paths]
    return [".".join(names) for names in parts]


PUBLIC = ("exact", "gauss_newton", "gauss_newton_cg", "gradient_descent", "preset", "then")
PUBLIC += ("restarted", "rescued", "smallest_change", "synthesize", "predict", "quantize", "views")


@pytest.mark.parametrize("name", modules())
def test_examples_run(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0


def test_public_functions_have_examples():
    for name in PUBLIC:
        assert ">>> " in getattr(outgen_jax, name).__doc__, name
    for name in ("softmax", "sigmoid", "values"):
        assert ">>> " in getattr(outputs, name).__doc__
    for name in ("parse", "dirichlet", "validate", "completed"):
        assert ">>> " in getattr(outgen_jax.targets, name).__doc__
