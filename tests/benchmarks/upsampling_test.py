"""The resampling benchmark times the DCGAN's layers, and its forms have their shapes."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.upsampling import sides


def test_the_benchmark_times_the_networks_layers():
    up, down = sides.layers(64, 64)
    assert up == [(4, 512, 256), (8, 256, 128), (16, 128, 64), (32, 64, 3)]
    assert down == [(64, 3, 64), (32, 64, 128), (16, 128, 256), (8, 256, 512)]
    timed = sides.operations(sides.DOWN, sides.Layer(8, 1, 5), 2)
    ours, blocks = (timed.output(name) for name in sides.DOWN)
    assert ours.shape == (2, 4, 4, 5)
    np.testing.assert_allclose(blocks, ours, rtol=1e-4, atol=1e-5)
    x = jnp.ones((2, 4, 4, 5))
    for form in sides.UP.values():
        shape = (form.kernel, form.kernel, 5, form.multiple * 6)
        assert jax.eval_shape(form.apply, x, jnp.zeros(shape)).shape == (2, 8, 8, 6)
