"""3×3 convolutions of few channels: Winograd's F(4, 3) down the columns, pairs of pixels along the rows.

With few channels, the matrices [C, K] of Winograd's products are too small for a CPU: it loads and stores more than it
multiplies. Here two pixels of a row count as one of 2·C channels. With the pairs p of the input one pixel ahead of the
pairs y of the output, each output sees two of them:

    y_q = p_q L + p_{q+1} R,    L, R: [2·C, 2·K], a quarter of them zeros

One product with [L R] gives both terms. Its matrix is [2·C, 4·K]. Down the columns, four outputs take six products
instead of twelve, with Bᵀ, G and Aᵀ of F(4, 3) along one axis:

    Y = Aᵀ [ (G g) ⊙ (Bᵀ d) ]

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, Section 4.3. Entries up to 8 cost
precision: float32 errs by up to 1e-6 of the largest value, where XLA's convolution errs by 2e-7 to 6e-7.

Layout: images NHWC, kernels HWIO, stride 1, zero padding of one pixel ("SAME").
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from outgen_jax.models.convolution import winograd

# Rows of Bᵀ, G and Aᵀ as in the paper.
_B_T = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_A_T = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)

# Activations of one block of images, where it has most channels. As large as the engine's own blocks on two processors,
# since to copy a block takes long beside products of few channels.
_BLOCK_BYTES = 2**21


def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves `x` [N, H, W, C] with `kernel` [3, 3, C, K] -> [N, H, W, K]."""
    c, k = kernel.shape[2:]
    filters = [_band(row) for row in winograd.transform_one(_G, list(kernel))]  # 6 of [2C, 4K]

    def block(x: jax.Array) -> jax.Array:
        n, h, w, _ = x.shape
        rows = winograd.transform_one(_B_T, _rows(x))  # 6 of [n, ⌈h/4⌉, ⌈w/2⌉ + 1, 2C]
        products = [
            _add_neighbours(jnp.tensordot(row, band, 1))
            for row, band in zip(rows, filters, strict=True)
        ]
        outputs = winograd.transform_one(_A_T, products)  # 4 of [n, ⌈h/4⌉, ⌈w/2⌉, 2K]
        y = jnp.stack(outputs, 2).reshape(n, h + -h % 4, w + w % 2, k)
        return y[:, :h, :w]

    return winograd.map_blocks(block, x, max(c, k), _BLOCK_BYTES)


def _rows(x: jax.Array) -> list[jax.Array]:
    """[N, H, W, C] -> 6 of [N, ⌈H/4⌉, ⌈W/2⌉ + 1, 2C]: every row of the overlapping tiles of six, in pairs of pixels."""
    n, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1 + -h % 4), (1, 1 + w % 2), (0, 0)))
    # Or XLA would fuse what makes `x` with each of its uses, and look for the border at each number.
    x = lax.optimization_barrier(x)
    x = x.reshape(n, x.shape[1], x.shape[2] // 2, 2 * c)
    return [x[:, i : i + h + -h % 4 : 4] for i in range(6)]


def _band(row: jax.Array) -> jax.Array:
    """One row [3, C, K] of a kernel -> [L R], [2C, 4K]."""
    _, c, k = row.shape
    none = jnp.zeros_like(row[:1])
    outputs = [jnp.concatenate(entries) for entries in ((row, none), (none, row))]
    band = jnp.stack(outputs, 2).reshape(2, 2 * c, 2 * k)  # [4 pixels, C, 2 outputs, K]
    return jnp.concatenate(list(band), 1)


def _add_neighbours(products: jax.Array) -> jax.Array:
    """[..., Q + 1, 4K] of pairs p_q times [L R] -> [..., Q, 2K]."""
    half = products.shape[-1] // 2
    return products[..., :-1, :half] + products[..., 1:, half:]
