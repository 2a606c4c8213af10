"""What viewers see: bare images of both networks in one random order, and how often viewers name the classes.

A viewer gets the sheets and the list of classes, and names at most two classes for each numbered image. Neither the
networks, nor the sources, nor the targets are shown.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.mixtures import starts, study
from experiments.mixtures.starts import Mixtures
from experiments.mixtures.study import Network, Options
from outgen_jax.report import plotting

# Of the sheets and answers, and their name in results.json, by start.
DIRECTORIES = {"test images": "viewers", "noise": "viewers_from_noise"}
COLUMNS, ROWS = 5, 4  # images of a sheet
_SIDE, _GAP, _NUMBER = 1.5, 0.12, 0.24  # inches


class Viewed(NamedTuple):
    """The images of all sheets, in the order of their numbers."""

    images: np.ndarray  # [N, H, W, C] uint8
    network: np.ndarray  # [N], index into NETWORKS
    classes: np.ndarray  # [N, 2], the two that the target names
    distance: np.ndarray  # [N], total variation from the target before rounding


def halves(
    count: int, num_classes: int, *, seed: int, other_than: np.ndarray | None = None
) -> Mixtures:
    """Two random classes with a probability of one half each, arguments as `starts.random_mixtures` has them.

    >>> halves(3, 10, seed=0).shares.tolist()
    [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    """
    found = starts.random_mixtures(count, 2, num_classes, seed=seed, other_than=other_than)
    return found._replace(shares=np.full((count, 2), 0.5))


def check_number(count: int, *, networks: int, sources: int) -> None:
    """Refuses fewer `sources` than `count` for each network.

    Raises:
      ValueError: in the name of the flags.
    """
    if sources < count * networks:
        raise ValueError(
            f"--viewed={count} takes {count * networks} sources, {count} for each network, and there are {sources}; "
            "raise --number"
        )


def viewed_job(
    networks: Mapping[str, Network],
    sources: np.ndarray,
    labels: np.ndarray | None,
    count: int,
    num_classes: int,
    options: Options,
) -> dict[str, np.ndarray]:
    """`Viewed` as `runs.kept` takes it: `count` images of each network, each from a source of its own.

    Raises:
      ValueError: there are fewer than `count` sources for each network.
    """
    check_number(count, networks=len(networks), sources=len(sources))
    needed = count * len(networks)
    labels = None if labels is None else labels[:needed]
    mixtures = halves(needed, num_classes, seed=options.seed + 1, other_than=labels)
    targets, parts = mixtures.targets(num_classes), []
    for index, network in enumerate(networks.values()):
        rows = slice(index * count, (index + 1) * count)
        parts.append(study.made_uint8(network, sources[rows], targets[rows], options))
    images, distance = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    found = Viewed(images, np.repeat(np.arange(len(networks)), count), mixtures.classes, distance)
    order = np.random.default_rng(options.seed).permutation(needed)
    return {name: array[order] for name, array in found._asdict().items()}


def sheets(images: np.ndarray) -> list[Figure]:
    """Figures of bare images under their numbers, which start with 1: [N, H, W, C]."""
    each = COLUMNS * ROWS
    return [_sheet(images[i : i + each], i + 1) for i in range(0, len(images), each)]


def _sheet(images: np.ndarray, first: int) -> Figure:
    width = COLUMNS * (_SIDE + _GAP) + _GAP
    height = ROWS * (_SIDE + _NUMBER + _GAP)
    figure = plotting.blank_figure(width, height)
    for index, image in enumerate(images):
        row, column = divmod(index, COLUMNS)
        left = _GAP + column * (_SIDE + _GAP)
        bottom = height - _NUMBER - _SIDE - row * (_SIDE + _NUMBER + _GAP)
        axes = plotting.place_axes(figure, left, bottom, _SIDE, _SIDE)
        plotting.show_image(axes, image, smooth=True)
        plotting.write_text(
            axes, str(first + index), (0.5, 1), offset=(0, 3), align=("center", "bottom"), size=10
        )
    return figure


def read_answers(
    directory: Path, names: Sequence[str], count: int
) -> dict[str, list[tuple[str, ...]]]:
    """The answers of every viewer: `NAME.json` files that map the numbers 1 to `count` to lists of class names.

    Raises:
      ValueError: a file is no JSON, lacks a number, has one too many, or names more than two classes or an unknown one.
    """
    found = {}
    for path in sorted(directory.glob("*.json")):
        try:
            answers = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # of JSON, or of its text
            raise ValueError(f"{path} is no JSON ({error}); mend it or move it away") from None
        numbers = [str(i + 1) for i in range(count)]
        if not isinstance(answers, dict) or set(answers) != set(numbers):
            raise ValueError(
                f"{path}: expected an answer for each of the numbers 1 to {count}, [] where nothing is seen, as in "
                '{"1": ["cat"], "2": [], ...}'
            )
        for number, classes in answers.items():
            known = isinstance(classes, list) and all(name in names for name in classes)
            if not known or len(classes) > 2:
                raise ValueError(
                    f"{path}: image {number} has the answer {classes}; expected at most two of {', '.join(names)}"
                )
        found[path.stem] = [tuple(answers[number]) for number in numbers]
    return found


def counts(
    answers: Sequence[Sequence[str]], viewed: Viewed, names: Sequence[str], network: int
) -> list[int]:
    """In how many images of a network a viewer named both classes, one, and none of the target's.

    >>> viewed = Viewed(np.zeros((2, 1, 1, 1)), np.array([0, 0]), np.array([[0, 1], [1, 2]]), np.zeros(2))
    >>> counts([("ship", "cat"), ("dog",)], viewed, ("cat", "ship", "dog"), 0)
    [1, 1, 0]
    """
    right = [
        len({names[k] for k in row} & set(said))
        for row, said, of in zip(viewed.classes, answers, viewed.network, strict=True)
        if of == network
    ]
    return [right.count(k) for k in (2, 1, 0)]


def numbers(
    viewed: Viewed, answers: Mapping[str, Sequence[Sequence[str]]], names: Sequence[str]
) -> dict[str, Any]:
    """What results.json keeps: the key of the sheets, every viewer's answers, and their counts by network."""
    return {
        "classes": [[names[k] for k in row] for row in viewed.classes],
        "network": [study.NETWORKS[k] for k in viewed.network],
        "distance": [float(f"{x:.4g}") for x in viewed.distance],
        "answers": {viewer: [list(said) for said in of] for viewer, of in answers.items()},
        "counts": {
            viewer: {
                network: counts(of, viewed, names, index)
                for index, network in enumerate(study.NETWORKS)
            }
            for viewer, of in answers.items()
        },
    }
