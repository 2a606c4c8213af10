"""The parts of the study of paper D: what is tried, one fine-tuning job, and its evaluation."""

import dataclasses
import functools
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import outgen_jax as og
from experiments.intermediate_constraint.data import Split
from outgen_jax import runs
from outgen_jax.data import distort
from outgen_jax.training import finetuning_fit
from outgen_jax.training.checkpoints import Checkpoints
from outgen_jax.training.finetuning_recipe import FinetuningRecipe, Penalty

PLAIN, MSE, PROPOSED, AUGMIX = "plain", "MSE", "proposed", "AugMix-style"
MAIN = (PLAIN, MSE, PROPOSED)
SCALES = {distort.CIFAR10_C: "CIFAR-10-C ", distort.IMAGENET_C: "ImageNet-C "}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a run of the study fixes."""

    levels: distort.Levels
    compared: distort.Levels | None  # a second scale, for evaluation only
    recipe: FinetuningRecipe
    layers: tuple[str, ...]  # constrained, and whose on/off agreement is measured
    variants: dict[str, Penalty]  # by name; their weights come from the grid
    weights: tuple[float, ...]  # the grid of λ
    kinds: tuple[str, ...]
    seeds: int
    targeted_images: int  # training images that are brought to targets; 0: that part is left out
    hardness_images: int  # test images that each tuned network is asked to be brought to targets on
    batch_size: int  # of evaluation


class Job(NamedTuple):
    """One fine-tuning; its results are in a file of its name."""

    stage: str  # "grid": on validation images; "final": on test images
    variant: str
    weight: float
    kind: str  # of distortion: noise, blur, both, targeted
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        text = f"{self.stage}_{self.variant}_{self.weight:g}_{self.kind}_{self.seed}"
        return "".join(c if c.isalnum() or c in "._-" else "-" for c in text)


class Condition(NamedTuple):
    """A state of the test images."""

    group: str
    noise: float
    blur: float
    scale: distort.Levels


class Study(NamedTuple):
    """The loaded data and the network everything starts from."""

    model: nnx.Module
    train: Split
    validation: Split
    test: Split
    settings: Settings
    directory: Path


def variants(layers: tuple[str, ...], beyond: tuple[str, ...]) -> dict[str, Penalty]:
    """The arms, and those of `beyond`: variants for which the paper has no numbers."""
    hold = functools.partial(Penalty, layers=layers)
    found = {PLAIN: hold(kind="none"), MSE: hold(kind="mse"), PROPOSED: hold(kind="constraint")}
    more = {
        AUGMIX: hold(kind="consistency"),
        "alpha 10": hold(kind="constraint", gain=10.0),
        "alpha 1": hold(kind="constraint", gain=1.0),
        "alpha 1 to 100": hold(kind="constraint", gain=1.0, gain_end=100.0),
        "alpha learned": hold(kind="constraint", gain_rate=0.1),
        "first layer only": hold(kind="constraint", layers=layers[:1]),
        "last layer only": hold(kind="constraint", layers=layers[-1:]),
        # The student's layers without dropout, and also with running statistics, as the original network's are.
        "no dropout": hold(kind="constraint", held_pass="no_dropout"),
        "MSE no dropout": hold(kind="mse", held_pass="no_dropout"),
        "inference": hold(kind="constraint", held_pass="inference"),
        "conv5 too": hold(kind="constraint", layers=("conv5_1", "conv5_2", "conv5_3", *layers)),
    }
    if unknown := [name for name in beyond if name not in more]:
        raise ValueError(f"unknown variant {unknown[0]!r}; there are {', '.join(more)}")
    return found | {name: more[name] for name in beyond}


def penalty_of(job: Job, settings: Settings) -> Penalty:
    """The job's penalty, with its λ."""
    return dataclasses.replace(settings.variants[job.variant], weight=job.weight)


def recipe_of(job: Job, settings: Settings) -> FinetuningRecipe:
    """The job's recipe. AugMix's three views cost 9 passes where the constraint costs 4, so it gets fewer updates."""
    recipe = settings.recipe
    if settings.variants[job.variant].kind == "consistency":
        return dataclasses.replace(recipe, updates=max(1, round(recipe.updates * 4 / 9)))
    return recipe


@functools.cache  # the compiled program goes with the function's identity
def distortion(kind: str, levels: distort.Levels) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """What `finetune` takes as `distort` for a kind of job: both, noise, blur, targeted or clean."""
    if kind == "clean":
        return lambda key, images: images
    if kind == "targeted":
        return _targeted_or_clean
    kinds = distort.KINDS if kind == "both" else (kind,)
    return lambda key, images: distort.random_distortion(key, images, levels, kinds=kinds)


def _targeted_or_clean(key: jax.Array, images: jax.Array) -> jax.Array:
    """Of images [B, H, W, 2C], the clean one and its output-targeted version, either, evenly."""
    clean, targeted = jnp.split(images, 2, axis=-1)
    return jnp.where(jax.random.bernoulli(key, shape=(len(images), 1, 1, 1)), targeted, clean)


def conditions(settings: Settings, *, compare: bool) -> list[Condition]:
    """Clean images and every level; `compare`: also of the second scale, where there is one."""
    found = [Condition("clean", 0.0, 0.0, settings.levels)]
    scales = [("", settings.levels)]
    if compare and settings.compared is not None:
        scales.append((SCALES[settings.compared], settings.compared))
    for prefix, scale in scales:
        found += [Condition(f"{prefix}noise", float(s), 0.0, scale) for s in scale.noise]
        found += [Condition(f"{prefix}blur", 0.0, float(s), scale) for s in scale.blur]
    return found


def run_job(job: Job, study: Study, on_updates: Callable[[int], None]) -> dict[str, Any]:
    """Fine-tunes, evaluates and keeps the results; an earlier result is read instead."""
    cache = study.directory / "cache" / f"{job.name}.npz"
    checkpoints = study.directory / "checkpoints" / job.name
    if cache.exists():
        on_updates(recipe_of(job, study.settings).updates)
    found = runs.kept(cache, lambda: _fine_tuned(job, study, checkpoints, on_updates))
    shutil.rmtree(checkpoints, ignore_errors=True)
    return found


def _fine_tuned(
    job: Job, study: Study, checkpoints: Path, on_updates: Callable[[int], None]
) -> dict[str, np.ndarray]:
    start = time.perf_counter()
    split = targeted_split(study) if job.kind == "targeted" else study.train
    tuned = finetuning_fit.finetune(
        study.model,
        split.images,
        split.labels,
        recipe_of(job, study.settings),
        penalty_of(job, study.settings),
        distort=distortion(job.kind, study.settings.levels),
        key=jax.random.key(job.seed),
        checkpoints=Checkpoints(checkpoints, keep=1),
        on_updates=on_updates,
    )
    middle = time.perf_counter()
    history = {f"history_{k}": np.array([r[k] for r in tuned.history]) for k in tuned.history[0]}
    found = history | evaluate(tuned.model, study, job.stage)
    if job.stage == "final" and job.kind in ("both", "targeted") and study.settings.targeted_images:
        found |= hardness(tuned.model, study)
    found["seconds"] = np.array([middle - start, time.perf_counter() - middle])
    return found


def before(study: Study) -> dict[str, Any]:
    """The same evaluation of the network before fine-tuning."""

    def measured() -> dict[str, np.ndarray]:
        found = evaluate(study.model, study, "final")
        return found | hardness(study.model, study) if study.settings.targeted_images else found

    return runs.kept(study.directory / "cache" / "before.npz", measured)


def evaluate(model: nnx.Module, study: Study, stage: str) -> dict[str, np.ndarray]:
    """Of every condition: which images are right [conditions, N], and the neurons' on/off agreement.

    Agreement is with the network before fine-tuning, on the clean image: [conditions, neurons], shares of images;
    of a layer that is a map, neurons are its channels. The noise of an image is the same for every network.
    """
    split = study.validation if stage == "grid" else study.test
    table = conditions(study.settings, compare=stage == "final")
    observe = _observer(nnx.split(study.model)[0], study.settings.layers)
    now, original = nnx.split(_frozen(model))[1], nnx.split(_frozen(study.model))[1]
    seen: list[list[list[np.ndarray]]] = [[] for _ in table]  # per condition and batch
    batch_size = min(study.settings.batch_size, len(split.labels))
    for start in range(0, len(split.labels), batch_size):
        rows = np.arange(start, start + batch_size) % len(split.labels)
        images, labels = jnp.asarray(split.images[rows]), split.labels[rows]
        _, was_on = observe(original, images / jnp.float32(255))
        for index, condition in enumerate(table):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), index), start)
            predicted, is_on = observe(now, _changed(key, images, condition))
            found = [np.asarray(predicted) == labels, _agreement(was_on, is_on)]
            seen[index].append([x[: len(split.labels) - start] for x in found])
    correct, agree = (
        np.stack([np.concatenate([batch[i] for batch in batches]) for batches in seen])
        for i in range(2)
    )
    return {"correct": correct, "agreement": agree.mean(1)}


def _frozen(model: nnx.Module) -> nnx.Module:
    copy = nnx.clone(model)
    copy.eval()
    return copy


def _changed(key: jax.Array, images: jax.Array, condition: Condition) -> jax.Array:
    scale = condition.scale
    return _distorted(
        key, images, condition.noise, condition.blur, truncate=scale.truncate, border=scale.border
    )


@functools.partial(jax.jit, static_argnames=("truncate", "border"))
def _distorted(
    key: jax.Array, images: jax.Array, noise: Any, blur: Any, *, truncate: Any, border: Any
) -> jax.Array:
    blurred = distort.gaussian_blur(
        images / jnp.float32(255), blur, truncate=truncate, border=border
    )
    return distort.gaussian_noise(key, blurred, noise)


@functools.cache
def _observer(graphdef: nnx.GraphDef, layers: tuple[str, ...]) -> Any:
    """Jitted (variables, images) -> predicted classes, and which neurons of each layer are on."""

    def observe(variables: Any, images: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        model = nnx.merge(graphdef, variables, copy=True)
        model.eval()
        logits, hidden = model.activations(images)
        return logits.argmax(-1), [hidden[name] > 0 for name in layers]

    return jax.jit(observe)


def _agreement(was_on: list[jax.Array], is_on: list[jax.Array]) -> np.ndarray:
    """Of every image, whether neurons are on or off as before, or the share of a channel: [B, neurons or channels]."""
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(was_on, is_on, strict=True)]
    agree = [(a == b).mean(tuple(range(1, a.ndim - 1))) for a, b in pairs]
    return np.concatenate(agree, -1)


def targeted_split(study: Study) -> Split:
    """Training images and, as further channels, their output-targeted versions (random=0.9, true=0.1)."""
    count = study.settings.targeted_images
    clean, labels = study.train.images[np.arange(count)], study.train.labels[:count]

    def moved() -> dict[str, np.ndarray]:
        found = _bring_to_targets(study.model, clean, labels, steps=6)
        return {"images": og.data.to_uint8(found.images)}

    targeted = runs.kept(study.directory / "cache" / "targeted.npz", moved)["images"]
    return Split(np.concatenate([clean, targeted], axis=-1), labels)


def hardness(model: nnx.Module, study: Study) -> dict[str, np.ndarray]:
    """How hard exact targets are on a network: total variation after 30 Jacobians, and the L2 change."""
    rows = np.arange(min(study.settings.hardness_images, len(study.test.labels)))
    images = study.test.images[rows]
    found = _bring_to_targets(model, images, study.test.labels[rows], steps=30)
    return {
        "target_distance": found.total_variation,
        "target_l2": np.asarray(og.metrics.l2_change(found.images, images)),
        "target_reached": found.converged,
    }


def _bring_to_targets(
    model: nnx.Module, images: np.ndarray, labels: np.ndarray, *, steps: int
) -> og.Result:
    apply_fn, variables = og.models.from_nnx(model)
    classes = og.predict(apply_fn, variables, images[:1]).shape[1]
    other = (labels + np.random.default_rng(0).integers(1, classes, len(labels))) % classes
    eye = np.eye(classes, dtype=np.float32)
    return og.synthesize(
        apply_fn,
        variables,
        images,
        0.1 * eye[labels] + 0.9 * eye[other],
        solver=og.gauss_newton(steps=steps, stride=None),
        tolerance=1e-3,
    )
