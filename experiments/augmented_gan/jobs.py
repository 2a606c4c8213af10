"""The jobs of paper B's study: each trains and scores one GAN, for one set and one seed."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tqdm

import outgen_jax as og
from experiments.augmented_gan import leaks, scores, training
from experiments.augmented_gan.presets import CONTROL, Arm, Settings, parse
from experiments.augmented_gan.scores import Look, Subject
from experiments.augmented_gan.training import Capacity, Generated, Originals
from experiments.common import jobs as common_jobs
from outgen_jax import files, runs, versions
from outgen_jax.data import augmented_set
from outgen_jax.data.augmented_set import AugmentedSet
from outgen_jax.json_text import to_json
from outgen_jax.models.feature_networks import FeatureNetwork

_WORST = 10  # images listed of each job


class Data(NamedTuple):
    """A subject's images."""

    name: str
    originals: Originals
    held_out: np.ndarray  # real images that no GAN sees, as many as are scored, or what there is


class Study(NamedTuple):
    """What all jobs share."""

    directory: Path
    settings: Settings
    room: Capacity
    spare: dict[str, int]  # generated images that a subject's sets need
    network: FeatureNetwork
    samples: int
    resamples: int


class Job(NamedTuple):
    """One GAN."""

    subject: str
    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """As --only takes it: subject/set/seed."""
        return f"{self.subject}/{self.arm.name}/{self.seed}"


def look_at_real(study: Study, data: Data) -> Subject:
    """Features of the real images in all their versions; computed once and kept."""

    def compute() -> dict[str, np.ndarray]:
        kinds = [kind for kind in augmented_set.KINDS if kind != "generated"]
        looks = scores.look_at_kinds(study.network, data.originals.images, kinds)
        found: dict[str, np.ndarray] = {}
        for kind, look in looks.items():
            found |= scores.named(kind, look)
        if len(data.held_out) >= scores.FEWEST:
            look = scores.look_at(study.network, data.held_out)
            found |= scores.named("held_out", look)
        return found

    arrays = runs.kept(study.directory / "real" / f"{data.name}.npz", compute)
    names = {key.partition("/")[0] for key in arrays}
    looks = {name: Look(*(arrays[f"{name}/{f}"] for f in Look._fields)) for name in names}
    held_out = looks.pop("held_out", None)
    return scores.subject_of(looks, held_out)


def job_directory(study: Study, job: Job) -> Path:
    """Where a job writes."""
    return study.directory / "jobs" / job.subject / job.arm.name / f"seed{job.seed}"


def run_job(study: Study, job: Job, data: Data, subject: Subject, bar: tqdm.tqdm) -> None:
    """Trains and scores one GAN, and writes the directory of the job."""
    directory, settings = job_directory(study, job), study.settings
    directory.mkdir(parents=True, exist_ok=True)
    generated, looks = generated_of(study, job)
    whole, table = training.data_of(job.arm, job.seed, data.originals, generated, study.room)
    checkpoint = generated and generated.checkpoint
    training.save_set(directory / "set.npz", table, data.originals.ids, checkpoint)
    made = training.program(settings, whole.bank.shape[-1], job.arm.scheme, job.arm.policy)
    epoch, samples = _train(study, job, made, whole, len(table.source), bar)
    player = made.settle(epoch.state)
    hash_ = training.save_generator(directory / "generator.npz", player)
    if job.arm.name == CONTROL and study.spare[job.subject]:
        images = training.sample(
            made.generator, player, training.generated_key(job.seed), study.spare[job.subject]
        )
        look = scores.look_at(study.network, images)
        files.save_arrays(directory / "generated.npz", {"images": images, **look._asdict()})
    own = scores.augmented_look(job.arm, table, subject, looks, study.samples)
    found = {
        "seed": job.seed,
        "checkpoint": hash_,
        "generated_by": checkpoint,
        **versions.code_version()._asdict(),
        "probability": None if epoch.state.probability is None else float(epoch.state.probability),
        "history": epoch.history,
        "augmented": scores.point(own, subject.real),
        **score_samples(study, subject, samples, directory),
    }
    if job.arm.name == CONTROL:  # its images are neither inverted nor upside down
        images = samples[settings.updates]
        kinds = scores.look_at_kinds(study.network, images, ("original", *leaks.LEAKS))
        evidence = {name: look.evidence for name, look in kinds.items()}
        found["detector"] = leaks.examine(subject.detector, evidence)
    files.write_atomic(directory / "scores.json", to_json(found))
    shutil.rmtree(directory / "checkpoints")


def _train(
    study: Study,
    job: Job,
    made: training.Program,
    whole: AugmentedSet,
    rows: int,
    bar: tqdm.tqdm,
) -> training.Progress:
    """Trains to the end, with a progress bar."""
    before = bar.n
    bar.set_description(job.name)
    for progress in training.train(
        made,
        study.settings,
        whole,
        rows=rows,
        seed=job.seed,
        samples=study.samples,
        directory=job_directory(study, job),
    ):
        bar.update(before + len(progress.epoch.history) - bar.n)
    return progress


def score_samples(
    study: Study, subject: Subject, samples: dict[int, np.ndarray], directory: Path
) -> dict[str, Any]:
    """Scores along the training, and all scores of the last samples."""
    points = []
    for updates, images in samples.items():
        look = scores.look_at(study.network, images)
        first = look.rows(slice(study.settings.curve_samples))
        points.append({"updates": updates, **scores.point(first, subject.real)})
    by_image = scores.by_image(look, subject.real)
    files.save_arrays(directory / "classes.npz", by_image)
    return {"points": points, **numbers_of(study, look, subject), "worst": worst(study, by_image)}


def numbers_of(study: Study, look: Look, subject: Subject) -> dict[str, Any]:
    """Scores, leaks, and the classes that the images are assigned to."""
    return {
        "scores": scores.score(look, subject.real, resamples=study.resamples),
        "leaks": leaks.leaks(subject.detector, look.evidence, resamples=study.resamples),
        **_classes(study, look, subject),
    }


def real_numbers(study: Study, subject: Subject) -> dict[str, Any]:
    """The same numbers for the originals, without distances to themselves, and for other real images."""
    real = subject.real.rows(slice(study.samples))
    unseen = subject.real.rows(leaks.held_out_rows(len(subject.real.features)))
    own = {
        "scores": {
            "images": len(real.features),
            "inception_score": scores.inception_score(real, resamples=study.resamples),
        },
        "leaks": leaks.leaks(subject.detector, unseen.evidence, resamples=study.resamples),
        **_classes(study, real, subject),
    }
    other = subject.held_out
    return {"real": own, "held_out": None if other is None else numbers_of(study, other, subject)}


def _classes(study: Study, look: Look, subject: Subject) -> dict[str, Any]:
    return {
        "surprise": float(og.metrics.surprise(look.probs, subject.real.probs).mean()),
        "classes": scores.frequent_classes(look, study.network.class_names),
    }


def worst(study: Study, by_image: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The images whose classes are least those of the originals, with their top classes."""
    names = study.network.class_names
    return [
        {
            "image": int(i),
            "surprise": float(by_image["surprise"][i]),
            "classes": [names[c] for c in by_image["classes"][i]],
            "probs": by_image["probs"][i].tolist(),
        }
        for i in np.argsort(-by_image["surprise"], kind="stable")[:_WORST]
    ]


def generated_of(study: Study, job: Job) -> tuple[Generated | None, Look | None]:
    """Images of the control with the same seed, and their features, if the job needs them."""
    if "generated" not in job.arm.kinds:
        return None, None
    control = job_directory(study, job._replace(arm=parse(CONTROL)))
    arrays = files.load_arrays(control / "generated.npz")
    checkpoint = json.loads((control / "scores.json").read_text())["checkpoint"]
    look = Look(*(arrays[field] for field in Look._fields))
    return Generated(arrays["images"], checkpoint), look


def collect(
    study: Study, every: list[Data], looks: dict[str, Subject], arms: list[Arm], seeds: int
) -> dict[str, Any]:
    """The results of all finished jobs, as results.json has them."""
    subjects = {}
    for data in every:
        subject = looks[data.name]
        sets: dict[str, list[Any]] = {}
        for arm in arms:
            paths = (
                job_directory(study, Job(data.name, arm, seed)) / "scores.json"
                for seed in range(seeds)
            )
            if found := common_jobs.finished(paths):
                sets[arm.name] = found
        subjects[data.name] = {
            "originals": len(data.originals.ids),
            "detector": {"accuracy": subject.detector.accuracy, "images": subject.detector.images},
            **real_numbers(study, subject),
            "sets": sets,
        }
    return {
        "network": study.network.name,
        "neighbours": scores.K,
        "settings": dataclasses.asdict(study.settings),
        "subjects": subjects,
    }


def first_samples(study: Study, results: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The last samples of each set's first finished seed."""
    path = f"samples_{study.settings.updates:06}.npz"
    return {
        name: {
            arm: files.load_arrays(
                job_directory(study, Job(name, parse(arm), seeds[0]["seed"])) / path
            )["images"]
            for arm, seeds in subject["sets"].items()
        }
        for name, subject in results["subjects"].items()
    }
