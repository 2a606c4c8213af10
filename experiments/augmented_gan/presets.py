"""What paper B's study compares, and at which sizes."""

import dataclasses
from typing import Any, Literal, NamedTuple

from outgen_jax.data import augmented_set, differentiable_augment

Scheme = Literal["off", "differentiable", "adaptive"]
CONTROL = "none"  # the originals alone
SINGLE = augmented_set.ADDED  # sets (1) and (4) of the paper
# Sets (2) and (5): two kinds mixed 1:1, without those that do not suit the subject; (3) and (6): twice as many.
MIXED = ("contrast+flip_left_right", "contrast+generated", "flip_left_right+generated")
DOUBLED = tuple(f"{name}@2" for name in MIXED)
SCHEMES: tuple[Scheme, ...] = ("differentiable", "adaptive")  # beyond the paper
PARTS = ("differentiable=color+translation",)  # of their changes


class Arm(NamedTuple):
    """What a GAN is trained on, and how images are changed in front of its discriminator."""

    name: str
    kinds: tuple[str, ...] = ()  # that join the originals, as many images of each
    multiple: int = 1  # of the originals, added in all
    scheme: Scheme = "off"
    policy: tuple[str, ...] = differentiable_augment.POLICY  # the changes of the scheme

    def added(self, originals: int) -> int:
        """Images that join so many originals."""
        return self.multiple * originals if self.kinds else 0

    def generated(self, originals: int) -> int:
        """Generated images that the set needs: as `augmented_set.build` divides them."""
        if "generated" not in self.kinds:
            return 0
        share, rest = divmod(self.added(originals), len(self.kinds))
        return share + (self.kinds.index("generated") < rest)


def parse(name: str) -> Arm:
    """Reads the name of a set, such as 'none', 'contrast+generated@2', 'adaptive' or 'adaptive=color+translation'.

    Raises:
      ValueError: anything else.
    """
    if name == CONTROL:
        return Arm(name)
    scheme, _, changes = name.partition("=")
    if scheme in SCHEMES:
        return Arm(name, scheme=scheme, policy=_policy(name, changes))
    kinds, _, multiple = name.partition("@")
    if multiple and not (multiple.isdecimal() and int(multiple) > 0):
        raise ValueError(f"--sets: {name!r} must end in '@' and a whole number, such as @2")
    known = f"{CONTROL}, {', '.join(SCHEMES)}, or {', '.join(SINGLE)}, joined by +"
    try:
        augmented_set.check_kinds(kinds.split("+"), caller="--sets")
    except ValueError as error:
        raise ValueError(f"--sets: no set {name!r}; use {known}") from error
    return Arm(name, tuple(kinds.split("+")), int(multiple or 1))


def _policy(name: str, changes: str) -> tuple[str, ...]:
    policy = tuple(changes.split("+")) if changes else differentiable_augment.POLICY
    if unknown := [change for change in policy if change not in differentiable_augment.POLICY]:
        raise ValueError(
            f"--sets: {name!r} has no change {unknown[0]!r}; use {', '.join(differentiable_augment.POLICY)}, "
            "joined by +"
        )
    return policy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How every GAN is trained: the same for all sets."""

    size: int  # side of the images
    width: int  # channels of the layers next to the image
    batch_size: int
    learning_rate: float  # of Adam with β1 0.5, both networks
    average_decay: float  # of the generator's moving average, which draws the images
    rounds: int  # parts of the training, each followed by a checkpoint
    updates: int  # in all
    score_every: int  # rounds
    curve_samples: int  # images scored there
    adapt_images: int  # real images in which the adaptive probability can go from 0 to 1

    @property
    def round_updates(self) -> int:
        """Updates of a round."""
        return self.updates // self.rounds

    @property
    def points(self) -> tuple[int, ...]:
        """Rounds after which there are scores, the last one always."""
        return tuple(
            n for n in range(1, self.rounds + 1) if n % self.score_every == 0 or n == self.rounds
        )


_ALL = [CONTROL, *SINGLE, *MIXED, *DOUBLED, *SCHEMES]
PRESETS: dict[str, dict[str, Any]] = {
    # Paper B, for a GPU. Its length is not in the paper: here about 1,000 passes over the originals.
    "paper": {
        "images": ["1000"],
        "sets": _ALL,
        "seeds": 3,
        "size": 128,
        "width": 64,
        "batch_size": 64,
        "updates": 15_000,
        "samples": 1000,
        "network": "Inception-v3",
        "resamples": 200,
    },
    # For one core, where an update took 74 ms, or 78 ms with changes in front of the discriminator.
    "cpu": {
        "images": ["1000"],
        "sets": _ALL,
        "seeds": 3,
        "size": 64,
        "width": 16,
        "batch_size": 16,
        "updates": 1536,
        "samples": 500,
        "network": "EfficientNet-Lite0",
        "resamples": 50,
    },
    # Augmentation in front of the discriminator, trained three times as long; for one core.
    "discriminator": {
        "images": ["1000"],
        "sets": [CONTROL, "differentiable", *PARTS],
        "seeds": 5,
        "size": 64,
        "width": 16,
        "batch_size": 16,
        "updates": 4800,
        "samples": 500,
        "network": "EfficientNet-Lite0",
        "resamples": 50,
    },
    # Runs everything in seconds; its numbers mean nothing.
    "smoke": {
        "images": ["40"],
        "sets": [CONTROL, "invert", "generated", "contrast+generated@2", "adaptive"],
        "seeds": 2,
        "size": 16,
        "width": 2,
        "batch_size": 8,
        "updates": 4,
        "samples": 24,
        "network": "pixels",
        "resamples": 5,
    },
}


class Schedule(NamedTuple):
    """The settings that have no flag, by preset; see `Settings`."""

    average_decay: float
    rounds: int
    score_every: int
    curve_samples: int
    adapt_images: int
    learning_rate: float = 2e-4


_ON_ONE_CORE = Schedule(0.99, rounds=12, score_every=3, curve_samples=125, adapt_images=16_000)
SCHEDULES = {
    "paper": Schedule(0.999, rounds=60, score_every=10, curve_samples=1000, adapt_images=200_000),
    "cpu": _ON_ONE_CORE,
    "discriminator": _ON_ONE_CORE,
    "smoke": Schedule(0.5, rounds=2, score_every=1, curve_samples=12, adapt_images=100),
}
