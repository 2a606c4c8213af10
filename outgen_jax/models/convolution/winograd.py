"""Winograd's minimal filtering F(2×2, 3×3) as strided slices, sums and 16 matrix products.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, Section 4.1. A
4×4 tile d of the input and a 3×3 filter g give a 2×2 tile of the output with 16 multiplications
instead of 36:

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A                                     (their Eq. 8)

Summed over input channels, the 16 products become 16 matrix products, which is what a CPU does
best. All entries of B and A are 0 or ±1 and those of G 0, ±1/2 or 1, so float32 keeps its precision
(about 1e-6 relative).

The factors of the products may be rounded to another type (`factors`); transforms and sums keep the type of the image.

Layout: images NHWC with even H and W, kernels HWIO, stride 1, zero padding of one pixel ("SAME").
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

# Rows of Bᵀ, G and Aᵀ as in the paper.
_B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])

# Activations of one block of images, where it has most channels: small enough that the four times larger tiles, and the
# products of as many numbers, stay in a CPU's cache.
_BLOCK_BYTES = 2**19
# Tiles of one block in the kernel's gradient, at least: over fewer, adding up the products takes
# longer than making them.
_BLOCK_TILES = 512

Grid = Sequence[Sequence[jax.Array]]  # one array per position of a tile


def convolution(x: jax.Array, kernel: jax.Array, *, factors: DTypeLike | None = None) -> jax.Array:
    """Convolves `x` [N, H, W, C] with `kernel` [3, 3, C, K] -> [N, H, W, K]; `factors`: their type, None for `x`'s."""
    entries = [[kernel[i, j] for j in range(3)] for i in range(3)]
    return _convolve(x, entries, channel_axis=0, factors=factors)


def input_gradient(
    cotangent: jax.Array, kernel: jax.Array, *, factors: DTypeLike | None = None
) -> jax.Array:
    """Pulls `cotangent` [N, H, W, K] of `convolution(x, kernel)` back to `x` -> [N, H, W, C].

    The convolution with the kernel turned by 180° and its channel axes exchanged; the exchange is
    left to the matrix products, because a transposed copy of a wide kernel takes longer than they.
    """
    turned = [[kernel[2 - i, 2 - j] for j in range(3)] for i in range(3)]
    return _convolve(cotangent, turned, channel_axis=1, factors=factors)


def _convolve(
    x: jax.Array, kernel: Grid, *, channel_axis: int, factors: DTypeLike | None
) -> jax.Array:
    factors = x.dtype if factors is None else factors
    filters = _rounded(_transform(_G, kernel), factors)  # 3×3 of [C, K] -> 4×4 of [C, K]
    widest = max(kernel[0][0].shape)

    def block(x: jax.Array) -> jax.Array:
        tiles = _rounded(_transform(_B_T, _tiles(x)), factors)  # 4×4 of [n, H/2, W/2, C]
        products = [
            [
                jnp.tensordot(d, g, ((3,), (channel_axis,)), preferred_element_type=x.dtype)
                for d, g in zip(*row, strict=True)
            ]
            for row in zip(tiles, filters, strict=True)
        ]
        return _interleave(_transform(_A_T, products))  # 2×2 of [n, H/2, W/2, K] -> [n, H, W, K]

    return map_blocks(block, x, widest, _BLOCK_BYTES)


def kernel_gradient(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """Pulls `cotangent` [N, H, W, K] of `convolution(x, kernel)` back to `kernel` -> [3, 3, C, K].

    The transpose of the formula above with respect to g, summed over tiles and images:
    Gᵀ [ (Bᵀ d B) ⊙ (A dY Aᵀ) ] G.

    One factor of these products has its channels first. Where the kernel is small that is the
    cotangent, in a copy of its own, which is faster than to leave it to the product, and the result
    is turned.
    """
    n, h, w, c = x.shape
    k = cotangent.shape[-1]
    turned = c * k <= n * h * w

    def product(tiles: jax.Array, gradients: jax.Array) -> jax.Array:
        """[T, C] and [T, K] -> [K, C] or [C, K]."""
        if turned:
            gradients = lax.optimization_barrier(gradients).T
            return jnp.dot(gradients, tiles, preferred_element_type=x.dtype)
        return jnp.dot(tiles.T, gradients, preferred_element_type=x.dtype)

    def block(x: jax.Array, cotangent: jax.Array) -> list[jax.Array]:
        tiles = _transform(_B_T, _tiles(x))  # 4×4 of [n, H/2, W/2, C]
        gradients = _transform(_A_T.T, _deinterleave(cotangent))
        return [
            product(_as_matrix(d), _as_matrix(g))
            for row in zip(tiles, gradients, strict=True)
            for d, g in zip(*row, strict=True)
        ]  # 16 of [K, C] or [C, K]

    products = _sum_blocks(block, x, cotangent)
    gradient = _transform(_G.T, [products[i : i + 4] for i in range(0, 16, 4)])
    kernel = jnp.stack([jnp.stack(row) for row in gradient])
    return lax.optimization_barrier(kernel).swapaxes(2, 3) if turned else kernel


def _transform(matrix: np.ndarray, grid: Grid) -> Grid:
    """`matrix` · `grid` · `matrix`ᵀ, entry by entry, with the zeros left out."""
    columns = zip(
        *(transform_one(matrix, column) for column in zip(*grid, strict=True)), strict=True
    )
    return [transform_one(matrix, values) for values in columns]


def transform_one(matrix: np.ndarray, values: Sequence[jax.Array]) -> list[jax.Array]:
    """`matrix` · `values`, with the zeros left out."""
    return [_combine(row, values) for row in matrix]


def _combine(weights: np.ndarray, values: Sequence[jax.Array]) -> jax.Array:
    terms = [
        v if w == 1 else v * v.dtype.type(w) for w, v in zip(weights, values, strict=True) if w != 0
    ]
    return sum(terms[1:], start=terms[0])


def _tiles(x: jax.Array) -> Grid:
    """[N, H, W, C] -> 4×4 of [N, H/2, W/2, C]: entry (i, j) of every overlapping 4×4 tile."""
    n, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [
        [lax.slice(x, (0, i, j, 0), (n, i + h - 1, j + w - 1, c), (1, 2, 2, 1)) for j in range(4)]
        for i in range(4)
    ]


def _interleave(grid: Grid) -> jax.Array:
    """2×2 of [N, h, w, K] -> [N, 2h, 2w, K], in concatenations that copy whole channel vectors."""
    n, h, w, k = grid[0][0].shape
    rows = [jnp.concatenate(row, -1).reshape(n, h, 1, 2 * w, k) for row in grid]
    return jnp.concatenate(rows, 2).reshape(n, 2 * h, 2 * w, k)


def _deinterleave(x: jax.Array) -> Grid:
    return [[x[:, i::2, j::2] for j in range(2)] for i in range(2)]


def _as_matrix(x: jax.Array) -> jax.Array:
    """[N, h, w, C] -> [N·h·w, C]."""
    return x.reshape(-1, x.shape[-1])


def _rounded(grid: Grid, factors: DTypeLike) -> Grid:
    """The factors of the products in their type."""
    return [[entry.astype(factors) for entry in row] for row in grid]


def _block_size(block_bytes: int, *arrays: jax.Array) -> int:
    """Images of a block that takes `block_bytes` over all `arrays`."""
    image_bytes = sum(a.size // a.shape[0] * a.dtype.itemsize for a in arrays)
    return max(1, min(arrays[0].shape[0], block_bytes // image_bytes))


def _blocks(size: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Cuts [N, ...] into ceil(N / size) equal blocks; the last is filled up with zeros."""
    count = -(-arrays[0].shape[0] // size)
    size = -(-arrays[0].shape[0] // count)
    padded = [
        jnp.pad(a, ((0, count * size - a.shape[0]),) + ((0, 0),) * (a.ndim - 1)) for a in arrays
    ]
    return tuple(a.reshape(count, size, *a.shape[1:]) for a in padded)


def map_blocks(
    block: Callable[[jax.Array], jax.Array], x: jax.Array, channels: int, block_bytes: int
) -> jax.Array:
    """`block` of some images at a time, `block_bytes` where it has most `channels`, its input's or its result's."""
    if not len(x):
        return block(x)
    size = max(1, _block_size(block_bytes, x) * x.shape[-1] // channels)
    if size == x.shape[0]:
        return block(x)
    (blocks,) = _blocks(size, x)
    y = lax.map(block, blocks)
    return y.reshape(-1, *y.shape[2:])[: x.shape[0]]


def _sum_blocks(
    block: Callable[[jax.Array, jax.Array], list[jax.Array]], x: jax.Array, cotangent: jax.Array
) -> list[jax.Array]:
    n, h, w, _ = x.shape
    if not n:
        return block(x, cotangent)
    enough = -(-4 * _BLOCK_TILES // (h * w))
    size = min(n, max(enough, _block_size(_BLOCK_BYTES // 2, x, cotangent)))
    if size == n:
        return block(x, cotangent)
    blocks = _blocks(size, x, cotangent)
    shapes = jax.eval_shape(block, *(b[0] for b in blocks))
    total, _ = lax.scan(
        lambda total, xs: (jax.tree.map(jnp.add, total, block(*xs)), None),
        [jnp.zeros_like(shape) for shape in shapes],
        blocks,
    )
    return total
