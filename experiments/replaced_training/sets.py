"""The generated sets, and the targets."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import outgen_jax as og
from experiments.common import target_text
from outgen_jax import files
from outgen_jax.data import sharded_set, sources
from outgen_jax.generation import provenance
from outgen_jax.networks import ApplyFn
from outgen_jax.solvers.solver import Solver
from outgen_jax.targets.draws import id_digests

CONFUSED = (
    "confused"  # in a target's text: a class drawn from what the classifier confuses the label with
)
BANK_DRAWS = (
    90  # targets a class for generation in the step: each of nine other classes about ten times
)
_SHARD = 500  # images: what an interruption costs at most
_ASKED_ROWS = 2000  # of the training set, to learn what is confused with what


class Frozen(NamedTuple):
    """The frozen classifier, and which classes it confuses."""

    apply_fn: ApplyFn
    variables: Any
    class_names: tuple[str, ...]
    confusion: np.ndarray | None  # [K, K] from label to another class; None: not asked


class Method(NamedTuple):
    """A way to generate a set."""

    solver: Solver
    tolerance: float
    quantize: bool


def method(name: str) -> Method:
    """The solver of a method: "sgd", paper A's with 100 updates, then rounded; "exact", Gauss-Newton and quantized."""
    if name == "sgd":
        return Method(og.preset("sgd"), 1e-9, quantize=False)
    return Method(og.gauss_newton(stride=None), 0.005, quantize=True)


def confusion(apply_fn: ApplyFn, variables: Any, train: sources.ImageSource) -> np.ndarray:
    """Mean output on the training images of each class, without the class itself: [K, K]."""
    assert train.labels is not None
    probs = og.predict(apply_fn, variables, train.images[:_ASKED_ROWS])
    labels = train.labels[:_ASKED_ROWS]
    others = 1e-6 + np.stack(  # a class of no images, or never confused, is left uniform
        [probs[labels == k].sum(0) for k in range(probs.shape[1])]
    )
    np.fill_diagonal(others, 0)
    return others / others.sum(1, keepdims=True)


def targets(
    text: str, frozen: Frozen, labels: np.ndarray, ids: Sequence[str], *, seed: int
) -> np.ndarray:
    """Targets [n, K] from a text in the grammar of `og.targets`, and one more word, `confused`.

    Raises:
      ValueError: the text cannot be read, or leaves classes free: in the step, all of a target is prescribed.
    """
    known: dict[str, Any] = {"class_names": frozen.class_names, "seed": seed}
    if CONFUSED not in text:
        return target_text.parse_full(text, labels=labels, image_ids=ids, **known)
    assert frozen.confusion is not None
    draws = np.array(
        [
            int.from_bytes(digest[:8], "little") / 2**64
            for digest in id_digests(seed, CONFUSED, ids, caller="--targets")
        ]
    )
    edges = np.cumsum(frozen.confusion, 1)[labels]  # [n, K]
    second = np.minimum((draws[:, None] >= edges).sum(1), edges.shape[1] - 1)
    found = np.empty(edges.shape, np.float32)
    for k in np.unique(second):
        chosen = np.flatnonzero(second == k)
        found[chosen] = target_text.parse_full(
            text.replace(CONFUSED, frozen.class_names[k]),
            labels=labels[chosen],
            image_ids=[ids[int(row)] for row in chosen],
            **known,
        )
    return found


def steered_classes(targets: np.ndarray) -> int:
    """The largest number of classes that one target [..., K] names."""
    return int((targets > 0).sum(-1).max())


def check_text(text: str, class_names: tuple[str, ...]) -> None:
    """Raises ValueError for a text that `targets` cannot read."""
    uniform = np.full((len(class_names),) * 2, 1 / len(class_names))
    targets(text, Frozen(_no_network, None, class_names, uniform), np.zeros(1, int), "0", seed=0)


def _no_network(variables: Any, images: Any) -> Any:
    raise NotImplementedError


def bank(text: str, frozen: Frozen, *, seed: int) -> np.ndarray:
    """Targets [K, D, K] to draw from in the step, D of them for an image of each class."""
    count = len(frozen.class_names)
    labels = np.repeat(np.arange(count), BANK_DRAWS)
    ids = [f"class {k}, draw {row}" for row, k in enumerate(labels)]
    return targets(text, frozen, labels, ids, seed=seed).reshape(count, BANK_DRAWS, count)


def make(
    name: str,
    text: str,
    frozen: Frozen,
    train: sources.ImageSource,
    *,
    fraction: float,
    directory: Path,
    seed: int,
) -> None:
    """Generates a fraction of the training set, or the part of it that is missing."""
    assert train.labels is not None
    order = np.random.default_rng(seed).permutation(len(train.ids))
    rows = order[: round(fraction * len(order))]
    labels, ids = train.labels[rows], tuple(train.ids[row] for row in rows)
    source = sources.ImageSource(train.images[rows], labels, train.class_names, ids)
    wanted = targets(text, frozen, labels, ids, seed=seed)
    chosen = method(name)
    start = time.perf_counter()
    report = og.generate_dataset(
        frozen.apply_fn,
        frozen.variables,
        source,
        wanted,
        directory,
        solver=chosen.solver,
        tolerance=chosen.tolerance,
        quantize=chosen.quantize,
        shard_size=_SHARD,
        about={
            "script": "experiments.replaced_training",
            "method": name,
            "targets": text,
            "seed": seed,
        },
        progress=True,
    )
    seconds = time.perf_counter() - start
    if report.made:
        share = report.made / report.shards
        files.write_atomic(_cost(directory), f"{seconds / (share * report.examples)}\n")


def seconds_an_image(directory: Path) -> float | None:
    """Seconds that generating one image took, with compilation.

    None where they are not known: nothing was generated, or the process ended before it wrote them.
    """
    record = _cost(directory)
    return float(record.read_text()) if record.exists() else None


def distances(directory: Path) -> dict[str, float]:
    """Of a finished set: the number of images, and quantiles of the total variation between outputs and targets."""
    found = np.array([row["total_variation"] for row in sharded_set.rows(directory)])
    median, high = np.quantile(found, (0.5, 0.95))
    return {"images": len(found), "median": float(median), "95th percentile": float(high)}


def _cost(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}_seconds.txt")


def classifier_hash(frozen: Frozen) -> str:
    """Of the frozen classifier's variables, as the manifest of a set has it."""
    return provenance.classifier_hash(frozen.variables)
