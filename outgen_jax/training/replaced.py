"""Training sets of which a part was replaced by generated images (paper A, Section 3).

Each generated image takes the row of the image that it was made from.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from outgen_jax.data import sharded_set, sources
from outgen_jax.data.image_source import ImageSource, PathLike
from outgen_jax.training.objectives import checked_fraction

_SMALLEST = np.finfo(np.float32).tiny  # stands for a probability that float32 has rounded to 0


class GeneratedSet(NamedTuple):
    """Images generated for a frozen classifier; row i of all arrays is one image."""

    images: np.ndarray  # [n, H, W, C] uint8
    labels: np.ndarray  # [n] int32, of their originals; -1 where these had none
    ids: tuple[str, ...]  # [n] of their originals
    probs: np.ndarray  # [n, K] of the frozen classifier, for the stored images
    class_names: tuple[str, ...] | None
    classifier: str  # hash of the frozen classifier's variables, from the manifest


class ReplacedRows(NamedTuple):
    """A training set after the exchange; see `objectives.Supervision`."""

    images: np.ndarray  # [N, H, W, C] uint8
    teacher_logits: np.ndarray  # [N, K] float32, zeros where nothing was replaced
    generated: np.ndarray  # [N] bool


def load(directory: PathLike) -> GeneratedSet:
    """Reads a set that `og.generate_dataset` has made.

    It needs `tensorflow-datasets`, as `og.generate_dataset` does.

    Raises:
      FileNotFoundError: `directory` holds no such set, or one that is not finished.
      ValueError: its network has other outputs than one softmax.
    """
    where = Path(directory).expanduser()
    manifest = sharded_set.read_manifest(where)
    if manifest is None or "counts" not in manifest:
        state = "no data set of" if manifest is None else "an unfinished data set of"
        remedy = (
            "give its"
            if manifest is None
            else "make the same call again to finish it, or give another"
        )
        raise FileNotFoundError(
            f"replaced.load: {str(where)!r} holds {state} og.generate_dataset; {remedy} directory"
        )
    made_from = manifest["made_from"]
    if list(made_from["kinds"]) != ["Softmax()"]:
        raise ValueError(
            f"replaced.load: {str(where)!r} was made for outputs of the kind {', '.join(made_from['kinds'])}; "
            "paper A replaces images for classifiers: generate them with output=og.outputs.softmax()"
        )
    source = sources.from_tfds(where, split="train")
    rows = list(sharded_set.rows(where))
    names = made_from["class_names"]
    return GeneratedSet(
        source.images,
        np.array([row["label"] for row in rows], np.int32),
        source.ids,
        np.stack([row["probs"] for row in rows]),
        None if names is None else tuple(names),
        made_from["classifier"],
    )


def rows_of(generated: GeneratedSet, source: ImageSource, *, classifier: str) -> np.ndarray:
    """The row of `source` that each generated image was made from: [n] int64.

    Args:
      generated: the generated set.
      source: the training set, with labels.
      classifier: hash of the frozen classifier that teaches.

    Raises:
      ValueError: the set was made by another classifier, from another data set, or with other labels.
    """
    where = "replaced.rows_of: the generated set"
    if generated.classifier != classifier:
        raise ValueError(
            f"{where} was made with another classifier ({generated.classifier[:12]}..., not "
            f"{classifier[:12]}...); use that one, or generate the images again"
        )
    if generated.class_names != source.class_names:
        raise ValueError(
            f"{where} has other classes than the training set ({_listed(generated.class_names)}; "
            f"{_listed(source.class_names)}); generate it from this training set"
        )
    if generated.images.shape[1:] != source.images.shape[1:]:
        raise ValueError(
            f"{where} has images of {list(generated.images.shape[1:])}, the training set of "
            f"{list(source.images.shape[1:])}; generate it from this training set"
        )
    place = {name: row for row, name in enumerate(source.ids)}
    unknown = [name for name in generated.ids if name not in place]
    if unknown:
        raise ValueError(
            f"{where} was made from another data set: {len(unknown)} of its {len(generated.ids)} ids "
            f"are not in the training set, e.g. {unknown[0]!r}; generate it from this training set"
        )
    rows = np.array([place[name] for name in generated.ids], np.int64)
    if source.labels is None:
        raise ValueError("replaced.rows_of: the training set has no labels; use one that has")
    differing = np.flatnonzero(source.labels[rows] != generated.labels)
    if differing.size:
        first = differing[0]
        raise ValueError(
            f"{where} was made with other labels: {generated.ids[first]!r} has "
            f"{generated.labels[first]} there and {source.labels[rows[first]]} in the training set "
            f"({differing.size} differ); generate it from this training set"
        )
    return rows


def replace(
    source: ImageSource, generated: GeneratedSet, rows: np.ndarray, fraction: float
) -> ReplacedRows:
    """Puts the first generated images into the rows they were made from, up to `fraction` of all rows.

    Of one set, the rows replaced at a smaller fraction are among those at a larger one.

    Args:
      source: the training set of N images.
      generated: the generated set.
      rows: from `rows_of`.
      fraction: of the N images, in [0, 1].

    Raises:
      ValueError: a fraction outside [0, 1], or more than there are generated images for; images of another size.
    """
    count = round(checked_fraction(fraction, caller="replaced.replace") * len(source.ids))
    if count > len(rows):
        raise ValueError(
            f"replaced.replace: a fraction of {fraction} of {len(source.ids)} images needs {count} "
            f"generated ones; there are {len(rows)}. Generate more, or lower the fraction"
        )
    chosen = rows[:count]
    if generated.images.shape[1:] != source.images.shape[1:]:
        raise ValueError(
            f"replaced.replace: generated images are {list(generated.images.shape[1:])} and those of the source "
            f"{list(source.images.shape[1:])}; generate from the source as it is trained on"
        )
    images, is_generated = source.images.copy(), np.zeros(len(source.ids), bool)
    teacher = np.zeros((len(source.ids), generated.probs.shape[1]), np.float32)
    images[chosen], is_generated[chosen] = generated.images[:count], True
    teacher[chosen] = np.log(np.maximum(generated.probs[:count], _SMALLEST))
    return ReplacedRows(images, teacher, is_generated)


def _listed(names: tuple[str, ...] | None) -> str:
    return "none" if names is None else ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
