"""Arrays under PyTorch's names become a network's variables, or are refused by name."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from outgen_jax.models.pytorch import torch_weights

SHAPES = {"conv.weight": (2, 2, 3, 4), "fc.weight": (3, 4), "fc.bias": (4,)}


def variables() -> dict[str, nnx.Param]:
    return {name: nnx.Param(jnp.zeros(shape)) for name, shape in SHAPES.items()}


def state() -> dict[str, np.ndarray]:
    """In PyTorch's layout."""
    rng = np.random.default_rng(0)
    shapes = {"conv.weight": (4, 3, 2, 2), "fc.weight": (4, 3), "fc.bias": (4,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def assign(changed: dict[str, np.ndarray], **options) -> dict[str, nnx.Param]:
    found = variables()
    torch_weights.assign(found, changed, caller="load", source="a.pth", network="Net-1", **options)
    return found


def test_every_variable_gets_the_array_of_its_name():
    given = state() | {"bn.num_batches_tracked": np.zeros((), np.int64)}
    found = assign(given)
    assert {v[...].dtype for v in found.values()} == {jnp.dtype(jnp.float32)}
    kernel = found["conv.weight"][...]
    for o, i, h, w in np.ndindex(4, 3, 2, 2):
        assert kernel[h, w, i, o] == np.float32(given["conv.weight"][o, i, h, w])
    np.testing.assert_array_equal(found["fc.weight"][...], np.float32(given["fc.weight"]).T)
    np.testing.assert_array_equal(found["fc.bias"][...], np.float32(given["fc.bias"]))


def test_a_layout_of_its_own():
    def mirrored(name: str, array: np.ndarray) -> np.ndarray:
        return array[::-1] if name == "fc.bias" else torch_weights.to_jax_layout(name, array)

    found = assign(state(), to_jax_layout=mirrored)
    np.testing.assert_array_equal(found["fc.bias"][...], np.float32(state()["fc.bias"])[::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fc.bias"), "a.pth is not of Net-1; missing: fc.bias; unexpected: none"),
        (lambda s: s.update(new=np.zeros(1)), "missing: none; unexpected: new"),
        (
            lambda s: s.update({f"x{i}": np.zeros(1) for i in range(7)}),
            "unexpected: x0, x1, x2, x3, x4 and 2 more",
        ),
        (
            lambda s: s.update({"fc.weight": np.zeros((3, 4))}),
            r"'fc.weight' of a.pth has shape \(3, 4\), which becomes \(4, 3\); expected \(3, 4\)",
        ),
    ],
)
def test_refuses_what_does_not_fit(change, message):
    given = state()
    change(given)
    with pytest.raises(ValueError, match=rf"load: .*{message}"):
        assign(given)
