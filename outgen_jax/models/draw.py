"""The attention GAN: a generator that draws an image in several steps, a discriminator that reads one in several steps.

Images [B, H, W, C] float32 in [0, 1]; canvases are their logits. Reading and writing are functions of
`attention`, and what a canvas begins with is in `first_canvas`; both are available here too.

Source: paper C (Kataoka, Matsubara and Uehara), after Gregor et al., "DRAW: A Recurrent Neural Network For Image
Generation", 2015.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from outgen_jax import image_checks
from outgen_jax.models.attention import DRAW_GLANCE as DRAW_GLANCE
from outgen_jax.models.attention import Attention as Attention
from outgen_jax.models.attention import Glance as Glance
from outgen_jax.models.attention import attend as attend
from outgen_jax.models.attention import attention_layer
from outgen_jax.models.attention import filter_bank as filter_bank
from outgen_jax.models.attention import read as read
from outgen_jax.models.attention import write as write
from outgen_jax.models.attention import write_all as write_all
from outgen_jax.models.first_canvas import image_logits as image_logits
from outgen_jax.models.first_canvas import marginal_sample as marginal_sample

Cell = Literal["sigmoid", "tanh", "gru", "lstm"]

# With a standard deviation of 1/√n the discriminator's sigmoid cells were seen to learn nothing; 4/√n is what
# Glorot and Bengio 2010 give for the sigmoid.
_SIGMOID_INIT = nnx.initializers.variance_scaling(4.0**2, "fan_in", "normal")
_CELLS: dict[str, Callable[..., Any]] = {
    "sigmoid": functools.partial(
        nnx.SimpleCell,
        activation_fn=jax.nn.sigmoid,
        kernel_init=_SIGMOID_INIT,
        recurrent_kernel_init=_SIGMOID_INIT,
    ),
    "tanh": nnx.SimpleCell,
    "gru": nnx.GRUCell,
    "lstm": nnx.OptimizedLSTMCell,
}
_UNROLL = 8  # steps compiled in one piece: training on CPU then takes 0.7 of the time


class Drawing(NamedTuple):
    """What the generator drew, step by step.

    Attributes:
      canvases: c_1 ... c_T, the logits of the pixels after each write, float32 [B, T, H, W, C].
      attention: where each step wrote, [B, T] in each field.
      images: the finished ones, sigmoid(c_T), float32 [B, H, W, C] in [0, 1].
    """

    canvases: jax.Array
    attention: Attention
    images: jax.Array


class Recurrent(nnx.Module):
    """A recurrent cell with a learned initial output h_0; an LSTM's memory begins with zeros.

    `cell` "sigmoid" is Eq. C1 as printed, h_t = σ(W_x x_t + W_h h_{t−1}) with a bias; "tanh" the same with σ = tanh.
    """

    def __init__(self, inputs: int, units: int, *, cell: Cell, rngs: nnx.Rngs) -> None:
        """`inputs` and `units`: lengths of x_t and h_t; h_0 is random, as in the paper, which leaves its scale open."""
        self.cell = _CELLS[cell](inputs, units, rngs=rngs)
        self.has_memory = cell == "lstm"
        self.h_0 = nnx.Param(nnx.initializers.normal(0.1)(rngs.params(), (units,), jnp.float32))

    def start(self) -> tuple[Any, jax.Array]:
        """The state before the first step, and h_0 [units]."""
        h_0 = self.h_0[...]
        return (jnp.zeros_like(h_0), h_0) if self.has_memory else h_0, h_0

    def __call__(self, state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        """State and x_t [inputs] -> the next state, and h_t [units]."""
        return self.cell(state, x)

    def with_own_output(self, state: Any, x: jax.Array, h: jax.Array) -> tuple[Any, jax.Array]:
        """The same for the input [x, h], where h is h_{t−1} once more (Eq. C4): [inputs − units], [units].

        A simple cell then has W_x[h] + W_h as one matrix: half of the discriminator's products.
        """
        if not isinstance(self.cell, nnx.SimpleCell):
            return self(state, jnp.concatenate([x, h]))
        from_x, from_h = jnp.split(self.cell.dense_i.kernel[...], [len(x)])
        y = x @ from_x + h @ (from_h + self.cell.dense_h.kernel[...])
        assert self.cell.dense_i.bias is not None
        h = self.cell.activation_fn(y + self.cell.dense_i.bias[...])
        return h, h


class Generator(nnx.Module):
    """Eq. C6-C8: T latent vectors drive a recurrent network, which writes a patch on the canvas at every step."""

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (28, 28, 1),
        *,
        first_image: ArrayLike | None = None,
        cell: Cell = "sigmoid",
        units: int = 256,
        points: int = 5,
        steps: int = 6,
        latent: int = 100,
        first: Glance = DRAW_GLANCE,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the network; the defaults are paper C's.

        Args:
          image_shape: (H, W, C).
          first_image: [H, W, C] in [0, 1], with whose logits the learned first canvas c_0 begins: in paper C
            a `marginal_sample` of the training images, or their mean. None: zeros, a grey canvas.
          cell: recurrent cell; "sigmoid" as printed.
          units: length of h_t.
          points: N; a patch is N×N.
          steps: T, number of writes.
          latent: length of z_t.
          first: where and how strongly it writes before training; without a stride, for h = 0 only, see `Glance`.
          rngs: initial values.

        Raises:
          ValueError: an unknown cell, a size below 1, more points than pixels, a first glance that is not above 0, or a
            first image that does not fit.
        """
        _check_options("draw.Generator", image_shape, cell, points, units, steps, latent)
        self.image_shape, self.points = tuple(image_shape), points
        self.latent_shape = (steps, latent)
        self.c_0 = nnx.Param(
            jnp.zeros(image_shape, jnp.float32)
            if first_image is None
            else image_logits(first_image, image_shape)
        )
        self.rnn = Recurrent(latent, units, cell=cell, rngs=rngs)
        self.attention = attention_layer(units, points, image_shape, first, rngs)
        self.patch = nnx.Linear(units, points * points * image_shape[2], rngs=rngs)

    def __call__(self, z: jax.Array) -> Drawing:
        """Latent vectors [B, T, latent], z_t ~ N(0, 1) in paper C (Eq. C6) -> every canvas and attention.

        Raises:
          ValueError: latent vectors of another shape.
        """
        if z.ndim != 3 or z.shape[1:] != self.latent_shape:
            steps, latent = self.latent_shape
            raise ValueError(
                f"draw.Generator: z must be [B, {steps}, {latent}], steps and latent, got {z.shape}; "
                "add the batch axis with z[None], or build the generator with other `steps` or `latent`"
            )
        return jax.vmap(self._draw)(z)

    def _draw(self, z: jax.Array) -> Drawing:
        """One image: z [T, latent]."""
        height, width, channels = self.image_shape

        def paint(h: jax.Array) -> tuple[jax.Array, Attention]:
            patch = self.patch(h).reshape(self.points, self.points, channels)
            return patch, attend(self.attention(h), points=self.points, height=height, width=width)

        _, h = _scan(self.rnn, self.rnn.start()[0], z)  # Eq. C7, [T, units]
        patches, attention = jax.vmap(paint)(h)
        # Eq. C8. The finished canvas is one product of all writes: training needs no other, and so computes no other.
        c_0 = self.c_0[...]
        writes = jax.vmap(lambda w, at: write(w, at, height=height, width=width))(
            patches, attention
        )
        finished = c_0 + write_all(patches, attention, height=height, width=width)
        return Drawing(c_0[None] + jnp.cumsum(writes, 0), attention, jax.nn.sigmoid(finished))


class Discriminator(nnx.Module):
    """Eq. C2-C5: T reads of one image, each with the attention given by the recurrent output of the step before."""

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (28, 28, 1),
        *,
        cell: Cell = "sigmoid",
        units: int = 256,
        points: int = 5,
        steps: int = 6,
        first: Glance = DRAW_GLANCE,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the network; the options are those of `Generator`, `steps` the number of reads.

        Raises:
          ValueError: an unknown cell, a size below 1, more points than pixels, or a first glance that is not above 0.
        """
        _check_options("draw.Discriminator", image_shape, cell, points, units, steps)
        self.image_shape, self.points, self.steps = tuple(image_shape), points, steps
        # As printed, h_{t−1} is both the cell's state and a part of its input.
        inputs = points * points * image_shape[2] + units
        self.rnn = Recurrent(inputs, units, cell=cell, rngs=rngs)
        self.attention = attention_layer(units, points, image_shape, first, rngs)
        self.head = nnx.Linear(units, 1, rngs=rngs)

    def __call__(self, images: jax.Array) -> tuple[jax.Array, Attention]:
        """Images [B, H, W, C] in [0, 1] -> logits [B], whose sigmoid is D(x) of Eq. C5, and attentions [B, T].

        Raises:
          ValueError: images of another shape.
        """
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(
                f"draw.Discriminator: images must be [B, {', '.join(map(str, self.image_shape))}], "
                f"got {images.shape}; add the batch axis with images[None], resize, or build it for their shape"
            )
        image_checks.check_floats(images, caller="draw.Discriminator")
        return jax.vmap(self._look)(images)

    def _look(self, image: jax.Array) -> tuple[jax.Array, Attention]:
        """One image [H, W, C] -> its logit [] and attentions [T]."""
        height, width, _ = self.image_shape

        def step(before: tuple[Any, jax.Array], _: jax.Array) -> tuple[Any, Attention]:
            state, h = before
            attention = attend(self.attention(h), points=self.points, height=height, width=width)
            r = read(image, attention, points=self.points)  # Eq. C3
            return self.rnn.with_own_output(state, r.ravel(), h), attention  # Eq. C4

        (_, h), attention = _scan(step, self.rnn.start(), jnp.arange(self.steps))
        return self.head(h)[0], attention


def _scan(step: Callable[[Any, Any], tuple[Any, Any]], start: Any, xs: jax.Array) -> Any:
    """`jax.lax.scan`, the first step apart: what it starts from is alike for all images, and stays one under `vmap`."""
    after, first = step(start, xs[0])
    end, rest = jax.lax.scan(step, after, xs[1:], unroll=_UNROLL)
    return end, jax.tree.map(lambda x, more: jnp.concatenate([x[None], more]), first, rest)


def _check_options(
    caller: str, image_shape: tuple[int, ...], cell: str, points: int, *sizes: int
) -> None:
    """`sizes`: units, steps, and latent where there is one."""
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(
            f"{caller}: image_shape must be (H, W, C), got {image_shape}; MNIST's is (28, 28, 1)"
        )
    if cell not in get_args(Cell):
        raise ValueError(f"{caller}: unknown cell {cell!r}; use one of {', '.join(get_args(Cell))}")
    for name, size in zip(("units", "steps", "latent"), sizes, strict=False):
        if size < 1:
            raise ValueError(f"{caller}: {name} must be at least 1, got {size}")
    if not 1 <= points <= min(image_shape[:2]):
        raise ValueError(
            f"{caller}: points must lie between 1 and the image's shorter side, {min(image_shape[:2])}, "
            f"got {points}; paper C has 5 or 4"
        )
