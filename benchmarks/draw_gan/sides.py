"""The sides of the attention GAN's benchmark: the same networks, the same alternating Adam updates.

One update is paper C's: Adam on the discriminator for a batch of real and one of generated images, then on the
generator for another; sigmoid cells, images [B, S, S, 1].
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.harness.alternation import Updates
from outgen_jax.devices import processors
from outgen_jax.models import draw
from outgen_jax.training import gan
from outgen_jax.training.updates import compile_updates

_RATE, _BETAS = 3.75e-4, (0.75, 0.999)
_SHOWN = 16  # images compared


class Workload(NamedTuple):
    batch_size: int = 100
    units: int = 256
    points: int = 5
    steps: int = 6
    latent: int = 100
    size: int = 28
    seed: int = 0

    def networks(self) -> tuple[draw.Generator, draw.Discriminator]:
        shape, rngs = (self.size, self.size, 1), nnx.Rngs(self.seed)
        options: dict[str, Any] = {"units": self.units, "points": self.points, "steps": self.steps}
        generator = draw.Generator(
            shape, first_image=np.full(shape, 0.1), latent=self.latent, **options, rngs=rngs
        )
        return generator, draw.Discriminator(shape, **options, rngs=rngs)

    def images(self) -> np.ndarray:
        """Two batches of strokes and dots, [2 B, S, S, 1] uint8."""
        rng = np.random.default_rng(self.seed)
        noise = rng.random((2 * self.batch_size, self.size, self.size, 1))
        return (255 * (noise > 0.8)).astype(np.uint8)

    def rows(self, updates: int) -> np.ndarray:
        return np.arange(updates * self.batch_size).reshape(-1, self.batch_size) % (
            2 * self.batch_size
        )

    def latents(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The z of both players' steps, [B, T, latent] each, as `gan.make_update` draws them."""
        keys = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), step), 7)
        shape = (self.batch_size, self.steps, self.latent)
        z_d, z_g = (np.asarray(jax.random.normal(keys[i], shape)) for i in (0, 4))
        return z_d, z_g


def outgen(workload: Workload) -> Updates:
    """`gan.make_update` in one scan, as `experiments.draw_gan` runs it."""
    generator, discriminator = workload.networks()
    adam = optax.adam(_RATE, b1=_BETAS[0], b2=_BETAS[1])
    g, g_state = gan.from_nnx(generator, lambda model, z, _: model(z).images, adam)
    d, d_state = gan.from_nnx(discriminator, lambda model, x, _: model(x)[0], adam)
    update = compile_updates(
        gan.make_update(
            g, d, latent_shape=generator.latent_shape, key=jax.random.key(workload.seed)
        )
    )
    images, start = jnp.asarray(workload.images()), gan.create(g_state, d_state)

    def run(updates: int) -> gan.GameState:
        state = jax.tree.map(jnp.copy, start)  # the update takes its argument's memory
        if updates:
            state, _ = update(state, images, jnp.asarray(workload.rows(updates)))
        return jax.block_until_ready(state)

    def shown(updates: int) -> np.ndarray:
        z = jnp.asarray(workload.latents(0)[0][:_SHOWN])
        return np.asarray(g.apply(*run(updates).generator[:2], z, jax.random.key(0))[0])

    return Updates(run, device=jax.devices()[0].device_kind, images=shown)


def pytorch(workload: Workload) -> Updates:
    """Eager PyTorch, written on batches."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(processors())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = [_arrays(model) for model in workload.networks()]
    images = torch.from_numpy(workload.images()).to(device)
    size, points = workload.size, workload.points
    pixels = torch.arange(size, device=device, dtype=torch.float32)
    grid = torch.arange(points, device=device, dtype=torch.float32) - (points - 1) / 2

    def linear(weights: Any, name: str, x: Any) -> Any:
        y = x @ weights[f"{name}.kernel"]
        return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y

    def banks(weights: Any, h: Any) -> tuple[Any, Any, Any]:
        x, y, log_variance, log_stride, log_intensity = linear(weights, "attention", h).unbind(-1)
        stride = (size - 1) / (points - 1) * torch.exp(log_stride)
        variance = torch.exp(log_variance)[:, None, None]
        found = []
        for center in (y, x):
            mean = ((size + 1) / 2 * (center + 1) - 1)[:, None] + grid * stride[:, None]
            distances = pixels - mean[..., None]  # [B, N, S]
            found.append(torch.softmax(-(distances**2) / (2 * variance), -1))
        return found[0], found[1], torch.exp(log_intensity)[:, None, None]

    def cell(weights: Any, x: Any, h: Any) -> Any:
        return torch.sigmoid(
            linear(weights, "rnn.cell.dense_i", x) + linear(weights, "rnn.cell.dense_h", h)
        )

    def generate(weights: Any, z: Any) -> Any:
        h = weights["rnn.h_0"].expand(len(z), -1)
        canvas = weights["c_0"][..., 0].expand(len(z), -1, -1)
        for t in range(workload.steps):
            h = cell(weights, z[:, t], h)
            f_y, f_x, intensity = banks(weights, h)
            patch = linear(weights, "patch", h).view(-1, points, points)
            canvas = canvas + intensity * (f_y.mT @ patch @ f_x)
        return torch.sigmoid(canvas)

    def discriminate(weights: Any, x: Any) -> Any:
        h = weights["rnn.h_0"].expand(len(x), -1)
        for _ in range(workload.steps):
            f_y, f_x, intensity = banks(weights, h)
            r = intensity * (f_y @ x @ f_x.mT)
            h = cell(weights, torch.cat([r.flatten(1), h], 1), h)
        return linear(weights, "head", h)[:, 0]

    def train(updates: int, latents: Any) -> Any:
        g, d = (
            {n: torch.tensor(a, device=device, requires_grad=True) for n, a in w.items()}
            for w in started
        )
        adam = functools.partial(torch.optim.Adam, lr=_RATE, betas=_BETAS)
        adam_g, adam_d = adam(g.values()), adam(d.values())
        for step, rows in enumerate(torch.from_numpy(workload.rows(updates)).to(device)):
            real = images[rows, ..., 0].float() / 255
            z_d, z_g = latents(step)
            with torch.no_grad():
                fake = generate(g, z_d)
            loss = functional.softplus(-discriminate(d, real)).mean()
            loss = loss + functional.softplus(discriminate(d, fake)).mean()
            adam_d.zero_grad()
            loss.backward()
            adam_d.step()
            loss = functional.softplus(-discriminate(d, generate(g, z_g))).mean()
            # Of the generator's parameters alone: the discriminator's need no gradient here.
            gradients = torch.autograd.grad(loss, list(g.values()))
            for parameter, gradient in zip(g.values(), gradients, strict=True):
                parameter.grad = gradient
            adam_g.step()
        return g

    def random(step: int) -> Any:
        return torch.randn((2, workload.batch_size, workload.steps, workload.latent), device=device)

    def same(step: int) -> Any:
        return [torch.tensor(z, device=device) for z in workload.latents(step)]

    def run(updates: int) -> None:
        train(updates, random)
        if device.type == "cuda":
            torch.cuda.synchronize()

    def shown(updates: int) -> np.ndarray:
        g = train(updates, same)
        with torch.no_grad():
            found = generate(g, torch.tensor(workload.latents(0)[0][:_SHOWN], device=device))
        array: np.ndarray = found[..., None].cpu().numpy()
        return array

    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return Updates(run, device=name, images=shown)


def _arrays(model: nnx.Module) -> dict[str, np.ndarray]:
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): np.array(variable[...]) for path, variable in state}


def flops_per_update(workload: Workload) -> float:
    """Multiplications and additions of the recurrent networks' matrix products as printed, without attention.

    `models.draw` multiplies h by the sum of its two matrices in the discriminator, and so needs less.
    """
    units, patch = workload.units, workload.points**2
    generator = workload.latent * units + units**2 + units * (patch + 5)
    discriminator = (patch + units) * units + units**2 + units * 5
    # Generator: forward, forward, backward by inputs and weights. Discriminator: three forward, real and fake
    # backward by both, and once by inputs alone.
    return 2 * workload.batch_size * workload.steps * math.fsum((4 * generator, 8 * discriminator))
