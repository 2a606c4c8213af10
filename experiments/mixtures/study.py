"""The parts that a run computes and keeps: images for the figures, and random mixtures with the judges' answers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import outgen_jax as og
from experiments.mixtures import judging, starts
from experiments.mixtures.starts import Mixtures
from outgen_jax.networks import ApplyFn

Classifier = tuple[ApplyFn, Any]  # apply_fn, variables
NETWORKS = ("ordinary", "robust")
STARTS = ("test images", "noise")


class Network(NamedTuple):
    """What images are made with: one classifier, or several that must agree."""

    apply_fn: ApplyFn
    variables: Any
    # Of several, each with outputs [B, V, K] for its views of an image. 0: one classifier, whose outputs are [B, K].
    agreeing: int = 0
    # Of `og.smallest_change`, which then makes the images. None: the default solver does.
    steps: int | None = None

    def titled(self, name: str) -> str:
        """What figures call it.

        >>> Network(None, (), agreeing=2).titled("robust")
        'robust networks'
        """
        return f"{name} networks" if self.agreeing > 1 else f"{name} network"

    def synthesize(self, sources: np.ndarray, targets: np.ndarray, **options: Any) -> og.Result:
        """Images with the outputs `targets` [N, K], of each classifier and each view."""
        solver = None if self.steps is None else og.smallest_change(steps=self.steps)
        wanted: Any = targets
        if self.agreeing:
            wanted = (targets[:, None],) * self.agreeing
            options["output"] = (og.outputs.softmax(),) * self.agreeing
        return og.synthesize(
            self.apply_fn, self.variables, sources, wanted, solver=solver, **options
        )


def together(
    classifiers: Sequence[Classifier], *, mirrored: bool = False, steps: int | None = None
) -> Network:
    """The network of `classifiers` that must agree, on an image and, if `mirrored`, on its mirror image as well."""
    if len(classifiers) == 1 and not mirrored:
        return Network(*classifiers[0], steps=steps)
    transforms = [_same, _mirror] if mirrored else [_same]
    seen = [og.views(apply_fn, transforms) for apply_fn, _ in classifiers]

    def apply_fn(variables: Sequence[Any], images: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(see(v, images) for see, v in zip(seen, variables, strict=True))

    variables = tuple(variables for _, variables in classifiers)
    return Network(apply_fn, variables, len(classifiers), steps)


def _same(image: jax.Array) -> jax.Array:
    return image


def _mirror(image: jax.Array) -> jax.Array:
    return image[:, ::-1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the study.

    Attributes:
      tolerance: total variation at which an image is finished.
      noise_mean: of the noise that images start from, in [0, 1].
      noise_std: of its pixels.
      seed: of the noise, the classes and the shares.
    """

    tolerance: float
    noise_mean: float
    noise_std: float
    seed: int

    def noise(self, count: int, shape: tuple[int, ...]) -> np.ndarray:
        """Images of noise: uint8 [N, *shape]."""
        return starts.noise(count, shape, mean=self.noise_mean, std=self.noise_std, seed=self.seed)


class Judged(NamedTuple):
    """Random mixtures of one network from one start, and what the judges say of them."""

    mixtures: Mixtures
    l2: np.ndarray  # [N], from the sources
    distance: np.ndarray  # [N], total variation from the target
    said: dict[str, np.ndarray]  # logits [N, K] by judge


def made(
    network: Network, sources: np.ndarray, targets: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 [N, H, W, C] with these outputs, and their total variations [N]."""
    result = network.synthesize(sources, targets, tolerance=options.tolerance, progress=True)
    return result.images, result.distance


def made_uint8(
    network: Network, sources: np.ndarray, targets: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """The images of `made` rounded to uint8, to look at; the total variations are those before rounding."""
    images, distance = made(network, sources, targets, options)
    return og.data.to_uint8(images), distance


def every_pair(
    network: Network, sources: np.ndarray, targets: np.ndarray, options: Options
) -> np.ndarray:
    """Each target from each source: [S, H, W, C], [T, K] -> uint8 [T, S, H, W, C]."""
    rows = len(targets), len(sources)
    images, _ = made_uint8(
        network, np.tile(sources, (rows[0], 1, 1, 1)), np.repeat(targets, rows[1], 0), options
    )
    return images.reshape(*rows, *sources.shape[1:])


def random_job(
    network: Network,
    judges: Mapping[str, Classifier],
    sources: np.ndarray,
    labels: np.ndarray | None,
    parts: int,
    num_classes: int,
    options: Options,
) -> dict[str, np.ndarray]:
    """Random mixtures of `parts` classes, other than the sources' labels, as `runs.kept` takes them."""
    mixtures = starts.random_mixtures(
        len(sources), parts, num_classes, seed=options.seed + parts, other_than=labels
    )
    images, distance = made(network, sources, mixtures.targets(num_classes), options)
    return {
        **mixtures._asdict(),
        "l2": np.asarray(og.metrics.l2_change(images, sources)),
        "distance": distance,
        **{f"judge {name}": judging.logits(judge, images) for name, judge in judges.items()},
    }


def judged(arrays: Mapping[str, np.ndarray]) -> Judged:
    """The result of `random_job`."""
    return Judged(
        Mixtures(arrays["classes"], arrays["shares"]),
        arrays["l2"],
        arrays["distance"],
        {name.removeprefix("judge "): a for name, a in arrays.items() if name.startswith("judge ")},
    )


def numbers(found: Judged) -> dict[str, Any]:
    """What results.json keeps of a job: per image L2 and distance, and per judge three estimates with intervals."""
    judges = {}
    for name, said in found.said.items():
        among = judging.among_named(said, found.mixtures)
        judges[name] = {
            "rank_correlation": judging.correlation_interval(found.mixtures.shares, among),
            "named_mass": judging.mean_of_rows(judging.named_mass(said, found.mixtures)),
            "named_on_top": judging.mean_of_rows(judging.named_on_top(said, found.mixtures)),
        }
    rounded = {
        name: {key: _rounded(value) for key, value in of.items()} for name, of in judges.items()
    }
    return {
        "images": len(found.l2),
        "l2": _rounded(found.l2),
        "distance": _rounded(found.distance),
        "judges": rounded,
    }


def _rounded(values: Any) -> list[float]:
    return [float(f"{x:.4g}") for x in values]
