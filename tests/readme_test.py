"""The README's example runs as it stands, and does what the text says."""

import re

import numpy as np
import pytest
from conftest import ROOT


@pytest.mark.slow  # a network of full depth
def test_the_example_is_exact():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    result, classifier = names["result"], names["classifier"]
    assert result.converged.all()
    ship, dog = (classifier.class_names.index(name) for name in ("ship", "dog"))
    np.testing.assert_allclose(result.probs[:, ship], 0.9, atol=2e-5)
    np.testing.assert_allclose(result.probs[:, dog], 0.1, atol=2e-5)
