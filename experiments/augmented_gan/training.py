"""Trains one GAN of paper B's study, with samples along the training."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from experiments.augmented_gan.presets import Arm, Scheme, Settings
from outgen_jax import files, runs
from outgen_jax.data import augmented_set
from outgen_jax.data.differentiable_augment import POLICY, adapt, differentiable_augment
from outgen_jax.generation import provenance
from outgen_jax.models import dcgan
from outgen_jax.training import gan, gan_fit, gan_game, gan_samples, updates
from outgen_jax.training.checkpoints import Checkpoints

_FIRST_PROBABILITY: dict[Scheme, float | None] = {
    "off": None,
    "differentiable": 1.0,
    "adaptive": 0.0,
}
_AT_ONCE = 100  # images generated in one call


class Capacity(NamedTuple):
    """Lengths to which the banks and tables of all jobs are padded, so that they share compiled programs."""

    bank: int
    table: int


class Program(NamedTuple):
    """The compiled functions of jobs with the same scheme in front of the discriminator."""

    update: updates.Update
    first_state: Callable[[int], gan.GameState]  # of a seed
    settle: Callable[[gan.GameState], gan.PlayerState]  # the averaged generator
    generator: dcgan.Generator  # of any of its weights; `sample` gives it those of a player


class Originals(NamedTuple):
    """The images that the sets of a subject are made of."""

    images: np.ndarray  # [N, H, W, C] uint8
    ids: tuple[str, ...]


class Generated(NamedTuple):
    """Images of the control's generator, and its hash."""

    images: np.ndarray  # [M, H, W, C] uint8
    checkpoint: str


class Progress(NamedTuple):
    """Where a training stands after a round."""

    epoch: gan_fit.Progress
    samples: dict[int, np.ndarray]  # updates -> images [n, H, W, C] uint8, where there are scores


def capacity(arms: list[Arm], numbers: list[int]) -> Capacity:
    """The capacity that all arms need, for subjects of so many originals."""
    spare = [max(arm.generated(n) for arm in arms) for n in numbers]
    added = [max(arm.added(n) for arm in arms) for n in numbers]
    return Capacity(
        max(n + m for n, m in zip(numbers, spare, strict=True)),
        max(n + m for n, m in zip(numbers, added, strict=True)),
    )


@functools.cache
def program(
    settings: Settings, channels: int, scheme: Scheme, policy: tuple[str, ...] = POLICY
) -> Program:
    """The functions of all jobs with these settings; cached, so that they share what is compiled."""
    adam = optax.adam(settings.learning_rate, b1=0.5, b2=0.999)

    def game_of(seed: int) -> gan_game.Game:
        return gan_game.create(
            _generator(settings, channels, seed),
            dcgan.Discriminator(**_sizes(settings, channels), rngs=nnx.Rngs(2 * seed + 1)),
            adam,
            key=None,
            average_decay=settings.average_decay,
            augmentation=_augmentation(scheme, policy, settings.adapt_images),
            probability=_FIRST_PROBABILITY[scheme],
            take=augmented_set.take,
        )

    def first_state(seed: int) -> gan.GameState:
        return game_of(seed).state._replace(key=jax.random.fold_in(jax.random.key(seed), 1))

    game = game_of(0)

    @jax.jit
    def settle(state: gan.GameState) -> gan.PlayerState:
        sizes = {"latent_shape": game.latent_shape, "batch_size": settings.batch_size}
        return gan.settled(game.player, state, **sizes)

    return Program(game.update, first_state, settle, _generator(settings, channels, 0))


def _generator(settings: Settings, channels: int, seed: int) -> dcgan.Generator:
    """The generator of a seed before training."""
    return dcgan.Generator(**_sizes(settings, channels), rngs=nnx.Rngs(2 * seed))


def _sizes(settings: Settings, channels: int) -> dict[str, int]:
    return {"size": settings.size, "width": settings.width, "channels": channels}


def _augmentation(scheme: Scheme, policy: tuple[str, ...], images: int) -> gan.Augmentation | None:
    if scheme == "off":
        return None
    changes = functools.partial(differentiable_augment, policy=policy)
    adaptive = functools.partial(adapt, images=images) if scheme == "adaptive" else None
    return gan.Augmentation(changes, adaptive)


def sample(
    generator: dcgan.Generator, player: gan.PlayerState, key: jax.Array, number: int
) -> np.ndarray:
    """Images of a generator, [number, H, W, C] uint8; image i is the same whatever the number."""
    z = gan_samples.latent_vectors(key, number, generator.latent_shape)
    return gan_samples.sample(gan.to_nnx(generator, player), z, batch_size=_AT_ONCE)


def generated_key(seed: int) -> jax.Array:
    """The key of the images that a control gives to other sets, none of which is scored."""
    return jax.random.fold_in(jax.random.key(seed), 5)


def data_of(
    arm: Arm, seed: int, originals: Originals, generated: Generated | None, room: Capacity
) -> tuple[augmented_set.AugmentedSet, augmented_set.Table]:
    """The set as the step reads it, padded, and its table without padding."""
    number = len(originals.images)
    found = originals.images[:0] if generated is None else generated.images
    table = augmented_set.build(
        jax.random.fold_in(jax.random.key(seed), 2),
        originals=number,
        available=number,
        kinds=arm.kinds,
        added=arm.added(number),
        generated=len(found),
    )
    bank = np.zeros((room.bank, *originals.images.shape[1:]), np.uint8)
    bank[:number] = originals.images
    bank[number : number + len(found)] = found
    return augmented_set.AugmentedSet(bank, augmented_set.pad(table, room.table)), table


def train(
    made: Program,
    settings: Settings,
    data: augmented_set.AugmentedSet,
    *,
    rows: int,
    seed: int,
    samples: int,
    directory: Path,
) -> Iterator[Progress]:
    """Trains from the last checkpoint for all remaining rounds; yields after each, with the samples so far.

    `rows` are those of the table without its padding, `samples` the number of images to generate in the end.
    """
    key_z = jax.random.fold_in(jax.random.key(seed), 3)
    checkpoints = Checkpoints(directory / "checkpoints")
    state = made.first_state(seed)

    def samples_of(done: int, state: gan.GameState) -> np.ndarray:
        path = directory / f"samples_{done * settings.round_updates:06}.npz"
        number = samples if done == settings.rounds else settings.curve_samples

        def compute() -> dict[str, np.ndarray]:
            if int(state.step) != done * settings.round_updates:
                raise FileNotFoundError(f"{path} is gone; remove {directory} to train once more")
            return {"images": sample(made.generator, made.settle(state), key_z, number)}

        return runs.kept(path, compute)["images"]

    found: dict[int, np.ndarray] = {}
    if checkpoints.latest is not None:
        # A run that died between a checkpoint and its samples makes them now.
        restored, history = gan_fit.restore(checkpoints, state, data)
        found = {n: samples_of(n, restored) for n in settings.points if n <= len(history)}
    for epoch in gan_fit.train(
        made.update,
        state,
        data,
        key=jax.random.fold_in(jax.random.key(seed), 4),
        epochs=settings.rounds,
        batch_size=settings.batch_size,
        checkpoints=checkpoints,
        num_images=rows,
        steps_per_epoch=settings.round_updates,
    ):
        done = len(epoch.history)
        if done in settings.points:
            found[done] = samples_of(done, epoch.state)
        by_updates = {n * settings.round_updates: images for n, images in found.items()}
        yield Progress(epoch, by_updates)


def save_generator(path: Path, player: gan.PlayerState) -> str:
    """Writes parameters and statistics by name -> their hash."""
    kept = (player.params, player.variables)
    leaves = jax.tree_util.tree_leaves_with_path(kept)
    files.save_arrays(path, {jax.tree_util.keystr(name): np.asarray(leaf) for name, leaf in leaves})
    return provenance.classifier_hash(kept)


def load_generator(path: Path, generator: dcgan.Generator) -> gan.PlayerState:
    """The parameters and statistics that `save_generator` wrote, for a generator of the same sizes.

    Raises:
      ValueError: a generator of other sizes.
    """
    _, player = gan.from_nnx(generator, lambda model, z, _: model(z), optax.identity())
    arrays = files.load_arrays(path)
    leaves, structure = jax.tree_util.tree_flatten_with_path((player.params, player.variables))
    shapes = {jax.tree_util.keystr(name): leaf.shape for name, leaf in leaves}
    if shapes != {name: array.shape for name, array in arrays.items()}:
        raise ValueError(f"{path} is of a generator of other sizes than its run.json says")
    found = jax.tree.unflatten(structure, [jax.numpy.asarray(arrays[name]) for name in shapes])
    return gan.PlayerState(*found, opt_state=())


def save_set(
    path: Path, table: augmented_set.Table, ids: tuple[str, ...], checkpoint: str | None
) -> None:
    """Writes the origin of every image of a set: source, kind, checkpoint."""
    origins = augmented_set.provenance(table, ids, checkpoint)
    columns = zip(*((o.source, o.kind, o.checkpoint or "") for o in origins), strict=True)
    names = augmented_set.Origin._fields
    files.save_arrays(
        path, {name: np.array(column) for name, column in zip(names, columns, strict=True)}
    )
