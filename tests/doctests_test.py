"""The examples in docstrings run and print what they say."""

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import outgen_jax
from outgen_jax import data, losses, metrics, outputs, pixels, report, targets
from outgen_jax.data import augmented_set
from outgen_jax.models import feature_networks, pretrained

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


# Modules whose public functions all have an example.
SHOWN = (losses, metrics, targets, data.augment)
# Modules whose NamedTuples all say what their fields are.
TUPLES = (outgen_jax, metrics, pixels, report, data.distort, augmented_set, pretrained)
TUPLES += (feature_networks,)


def public(module, kind) -> Iterator[tuple[str, type]]:
    """What a module defines or exports by a public name, of this package."""
    for name, found in inspect.getmembers(module, kind):
        if not name.startswith("_") and found.__module__.startswith(module.__name__):
            yield name, found


@pytest.mark.parametrize("module", SHOWN, ids=lambda module: module.__name__)
def test_functions_begin_with_a_sentence_and_have_an_example(module):
    for name, function in public(module, inspect.isfunction):
        assert inspect.getdoc(function).splitlines()[0].endswith((".", ":", "]", "?")), name
        assert ">>> " in function.__doc__, name


@pytest.mark.parametrize("module", TUPLES, ids=lambda module: module.__name__)
def test_tuples_say_what_their_fields_are(module):
    found = [c for _, c in public(module, inspect.isclass) if hasattr(c, "_fields")]
    assert found
    for kind in found:
        _, _, attributes = inspect.getdoc(kind).partition("Attributes:")
        missing = [field for field in kind._fields if f"\n  {field}: " not in attributes]
        assert missing == [], kind
