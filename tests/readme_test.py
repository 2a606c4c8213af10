"""The README's example runs as it stands, and does what the text says."""

import numpy as np
import pytest
from conftest import ROOT
from pages import BLOCK, run


@pytest.mark.slow  # a network of full depth
def test_the_example_is_exact():
    names = run(ROOT / "README.md")
    result, classifier = names["result"], names["classifier"]
    assert result.converged.all()
    ship, dog = (classifier.class_names.index(name) for name in ("ship", "dog"))
    np.testing.assert_allclose(result.probs[:, ship], 0.9, atol=2e-5)
    np.testing.assert_allclose(result.probs[:, dog], 0.1, atol=2e-5)


def test_both_readmes_have_one_example():
    english, japanese = (
        BLOCK.findall((ROOT / f).read_text()) for f in ("README.md", "README.ja.md")
    )
    assert len(english) == 1
    assert english == japanese
