"""Both sides of the attention GAN's benchmark train the same networks."""

import numpy as np
import pytest

from benchmarks.draw_gan import sides, table


def test_pytorch_draws_the_same_images_after_two_updates():
    pytest.importorskip("torch", reason="compares with PyTorch")
    workload = sides.Workload(batch_size=4, units=5, points=2, steps=2, latent=3, size=6)
    ours, theirs = sides.outgen(workload), sides.pytorch(workload)
    start = ours.images(0)
    np.testing.assert_allclose(theirs.images(0), start, atol=1e-5)
    after = ours.images(2)
    moved = np.linalg.norm(after - start)
    assert moved > 1e-4
    assert np.linalg.norm(theirs.images(2) - after) < 0.02 * moved


def test_operations_of_an_update_are_counted():
    workload = sides.Workload(batch_size=1, units=1, points=1, steps=1, latent=1)
    # Generator: z, h and the six outputs of h; discriminator: r, h, h and the five outputs of h.
    assert sides.flops_per_update(workload) == 2 * (4 * (1 + 1 + 6) + 8 * (1 + 1 + 1 + 5))


def test_a_side_that_fails_in_a_later_turn_is_not_compared_with():
    side = {"seconds_per_update": [0.5, 0.5], "compile_seconds": 1.0, "difference": 0.0}
    failed = {"seconds_per_update": [0.1], "failure": "failed: exit code -9"}
    found = {"outgen_jax": side | {"failure": None}, "PyTorch eager": side | failed}
    ours, theirs = table.rows(found, 1e9)
    assert (ours["updates/s"], ours["× PyTorch"]) == ("2.0", "")
    assert (theirs["updates/s"], theirs["ms/update"]) == ("failed: exit code -9", "")
