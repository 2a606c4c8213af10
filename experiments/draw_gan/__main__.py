"""Paper C: a GAN that draws with attention; its figures, latent studies and scores.

Purpose   Figs C3 to C10 of Kataoka, Matsubara and Uehara: digits drawn in six steps (N = 5 and N = 4), a GAN of
          perceptrons as baseline, and six latent conditions. Beyond the paper: scores, which it left to future work.
Command   python -m experiments.draw_gan --data_dir=... --out=...      presets paper and plus; README.md has the
                                                                       command of the committed results
          python -m experiments.draw_gan --presets=paper --out=...                      the paper's settings alone
          python -m experiments.draw_gan --presets=aids --first_seed=3 --out=...        what attention itself gains
          python -m experiments.draw_gan --presets=ablation --out=...                   why the settings collapse
          python -m experiments.draw_gan --presets=attention_colour --seeds=1 --dataset=FOLDER --size=32 (photographs)
Presets   attention, attention_n4, baseline: the paper's settings. attention_plus, attention_plus_n4: the same N and T
          with settings found here. baseline_plus: the baseline with what of them it can have. A name such as
          attention+cell+r1 has some of the changes: presets.py. attention_colour: settings for photographs. smoke:
          for tests; on digits in seconds, see experiments/README.md.
Expected  see README.md, which has the hours of each command
Output    --out gets results.json (numbers of every seed), table.md, samples.png (Figs C3, C4, C5 and C7), fig_c6,
          fig_c8_c9, fig_c10 and a GIF of canvases being drawn of each preset with attention, and a directory of
          checkpoints and samples for every run. Figures show the first seed.

The same command resumes at the last checkpoint; finished runs are kept, and the table is remade after each. Images
that are not 28×28 grey digits get samples and latent studies but no scores, which need a classifier of digits.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm
from absl import flags

from experiments.common import flags as common_flags
from experiments.common import jobs as common_jobs
from experiments.common import tables as common_tables
from experiments.draw_gan import figures, latent, presets, scores, table, training
from experiments.draw_gan.presets import CHANGES, GROUPS, PRESETS, Preset
from outgen_jax import files, runs, scripts, versions
from outgen_jax.data import grey_levels, sources
from outgen_jax.json_text import to_json
from outgen_jax.models import draw
from outgen_jax.training import gan_fit
from outgen_jax.training.checkpoints import Checkpoints

_PRESETS = flags.DEFINE_list(
    "presets",
    ["paper", "plus"],
    f"Of {', '.join(PRESETS)}, with +changes ({', '.join(CHANGES)}), or groups: {', '.join(GROUPS)}.",
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each preset.", 1)
_FIRST_SEED = flags.DEFINE_integer("first_seed", 0, "Their first seed; the others follow it.", 0)
_ONLY = flags.DEFINE_list("only", [], "Jobs to run now, as preset/seed; by default all.")
_DATASET = flags.DEFINE_string("dataset", "mnist", "tfds name, .npz file, folder, or 'digits'.")
_DATA_DIR = common_flags.data_dir()
_SIZE = flags.DEFINE_integer("size", None, "Side to bring images to; as stored by default.", 1)
_TRAIN_IMAGES = flags.DEFINE_integer("train_images", 50_000, "Training images, from the start.", 1)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Instead of the preset's.", 1)
_POINTS = flags.DEFINE_integer("points", None, "N, instead of the preset's.")
_STEPS = flags.DEFINE_integer("steps", None, "T, instead of the preset's.")
_SAMPLES = flags.DEFINE_integer("samples", 10_000, "Generated images to score.", 1)
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Of the bootstrap intervals.", 10)
_OUT = common_flags.out("draw_gan")
_OVERWRITE = common_flags.overwrite()

LATENT_IMAGES = 1000  # of each latent condition
_BATCH = 500  # images generated at a time


class Data(NamedTuple):
    """The images of a run."""

    train: np.ndarray  # [N, H, W, C] uint8
    held_out: np.ndarray  # real images that no GAN saw, as many as are scored
    reference: scores.Reference | None  # where there are digits


def load() -> Data:
    """The images of the flags. Where the source has no test split, what is not trained on is halved for the scores."""
    size = None if _SIZE.value is None else (_SIZE.value, _SIZE.value)

    def split(name: str) -> sources.ImageSource:
        return sources.load(_DATASET.value, split=name, data_dir=_DATA_DIR.value, size=size)

    source = split("train")
    train, rest = np.split(source.images, [_TRAIN_IMAGES.value])
    held_out = rest[: _SAMPLES.value]
    if source.class_names != scores.DIGITS or train.shape[1:] != (28, 28, 1):
        print(f"--dataset={_DATASET.value} has no digits of 28×28 grey pixels: no scores")
        return Data(train, held_out, None)
    scores.check_number("--samples", _SAMPLES.value)
    if sources.has_splits(_DATASET.value):
        test = split("test").images
    else:
        held_out, test = rest[::2][: _SAMPLES.value], rest[1::2]
        if len(test) < scores.FEWEST:
            raise ValueError(
                f"--dataset={_DATASET.value} has no test split, and --train_images={_TRAIN_IMAGES.value} leaves "
                f"{len(rest)} of its {len(source.images)} images; the scores need at least {2 * scores.FEWEST}. "
                "Train on fewer"
            )
    return Data(train, held_out, scores.reference(test[: _SAMPLES.value], train))


def preset_of(name: str) -> Preset:
    """The preset of a name, with the flags that stand for its options."""
    changes: dict[str, Any] = {
        "epochs": _EPOCHS.value,
        "points": _POINTS.value,
        "steps": _STEPS.value,
    }
    given = {k: v for k, v in changes.items() if v is not None}
    return dataclasses.replace(presets.preset(name), **given)


class Trained(NamedTuple):
    """A preset after its training from one seed."""

    preset: Preset
    game: training.Game
    params: Any  # the generator's moving average
    history: list[dict[str, float]]

    def images(self, z: jax.Array) -> np.ndarray:
        """Latent vectors [B, ...] -> images [B, H, W, C] in [0, 1], a batch at a time."""
        parts = (
            self.game.generate(self.params, z[i : i + _BATCH]) for i in range(0, len(z), _BATCH)
        )
        return np.concatenate([np.asarray(training.to_images(part)) for part in parts])

    def drawing(self, z: jax.Array) -> draw.Drawing:
        """Latent vectors [B, T, latent] -> every canvas and attention, of presets with attention."""
        drawing: draw.Drawing = self.game.generate(self.params, z)
        return drawing


def train(preset: Preset, seed: int, data: Data, directory: Path, title: str) -> Trained:
    """Trains a preset from one seed, from the newest checkpoint on."""
    order, key = jax.random.split(jax.random.key(seed))
    first = training.first_image(preset, data.train, jax.random.fold_in(jax.random.key(seed), 2))
    updates = preset.epochs * max(1, len(data.train) // preset.batch_size)
    game = training.game(preset, first, updates=updates, seed=seed, key=key)
    epochs = gan_fit.train(
        game.update,
        game.state,
        data.train,
        key=order,
        epochs=preset.epochs,
        batch_size=preset.batch_size,
        checkpoints=Checkpoints(directory / "checkpoints"),
        save_every=preset.save_every,
    )
    with tqdm.tqdm(total=preset.epochs, desc=title, unit="epoch", mininterval=1) as bar:
        for epoch in epochs:
            bar.update(len(epoch.history) - bar.n)
            row = epoch.history[-1]
            bar.set_postfix({k: f"{row[f'{k}_loss']:.2f}" for k in ("discriminator", "generator")})
    return Trained(preset, game, epoch.state.average, epoch.history)


def run_one(name: str, seed: int, data: Data, out: Path) -> dict[str, Any]:
    """Trains, studies and scores one preset from one seed -> the content of `scores.json`."""
    directory = out / name / f"seed{seed}"
    kept = directory / "scores.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    directory.mkdir(parents=True, exist_ok=True)
    trained = train(preset_of(name), seed, data, directory, f"{name}, seed {seed}")
    # `train` has taken 0 to 2 of this key: its two halves, and the first image's.
    key_z, key_latent = jax.random.split(jax.random.fold_in(jax.random.key(seed), 3))
    z = jax.random.normal(key_z, (_SAMPLES.value, *trained.game.latent_shape))
    generated = grey_levels.to_uint8(trained.images(z))
    files.save_arrays(directory / "samples.npz", {"images": generated[:1000]})
    found = {
        **versions.code_version()._asdict(),
        "seed": seed,
        "settings": dataclasses.asdict(trained.preset),
        "history": trained.history,
    }
    recurrent = trained.preset.network == "attention"
    if recurrent:
        study = latent_study(trained, data, key_latent)
        found["latent"] = study.numbers
    if data.reference is not None:
        canvases = step_images(trained, z[: scores.STEP_IMAGES]) if recurrent else None
        found["scores"] = scores.score(
            generated, data.reference, resamples=_RESAMPLES.value, canvases=canvases
        )
    if recurrent and seed == _FIRST_SEED.value:
        drawing = trained.drawing(z[:40])
        points = trained.preset.points
        figures.canvases(out / f"fig_c6_{name}.png", drawing, points)
        figures.animation(out / f"drawing_{name}.gif", drawing, points)
        figures.latent(out, name, study)
    files.write_atomic(kept, to_json(found))
    return found


def latent_study(trained: Trained, data: Data, key: jax.Array) -> latent.Study:
    """The six latent conditions; with digits where there is a classifier of them."""
    label = None
    if data.reference is not None:
        look = data.reference.look

        def label(images: np.ndarray) -> np.ndarray:
            return look(grey_levels.to_uint8(images)).probs.argmax(-1)

    number = min(LATENT_IMAGES, _SAMPLES.value)
    shape = trained.game.latent_shape
    return latent.study(trained.images, shape, number=number, key=key, label=label)


def step_images(trained: Trained, z: jax.Array) -> np.ndarray:
    """Every canvas as an 8-bit image, [m, T, H, W, C]."""
    parts = (trained.drawing(z[i : i + _BATCH]).canvases for i in range(0, len(z), _BATCH))
    return np.concatenate([grey_levels.to_uint8(np.asarray(jax.nn.sigmoid(p))) for p in parts])


def real_scores(data: Data) -> dict[str, Any] | None:
    """The scores of real images that no GAN saw; None if there are too few."""
    if data.reference is None or len(data.held_out) < scores.FEWEST:
        return None
    return scores.score(data.held_out, data.reference, resamples=_RESAMPLES.value)


def draw_samples(results: dict[str, Any], train_images: np.ndarray, out: Path) -> None:
    """The sheet of samples: training images, and of each finished preset those of its first seed."""
    arms, notes = {"training images": train_images}, [""]
    if results["real"] is not None:
        notes = [f"FID of unseen ones {results['real']['fid']['estimate']:.2f}"]
    for name, found in results["presets"].items():
        path = out / name / f"seed{_FIRST_SEED.value}" / "samples.npz"
        if path.exists():
            with np.load(path) as kept:
                arms[table.name_of(name, found)] = kept["images"]
            notes.append(figures.note(found[0]))
    figures.samples(out / "samples.png", arms, notes)


def finished(names: list[str], seeds: range, out: Path) -> dict[str, list[Any]]:
    """The finished runs of each preset that has some."""
    found = {
        name: common_jobs.finished(out / name / f"seed{seed}" / "scores.json" for seed in seeds)
        for name in names
    }
    return {name: runs_ for name, runs_ in found.items() if runs_}


def main(argv: list[str]) -> None:
    """Runs the study with parsed flags."""
    del argv
    scripts.enable_compilation_cache()
    names = presets.names_of(_PRESETS.value)
    seeds = range(_FIRST_SEED.value, _FIRST_SEED.value + _SEEDS.value)
    jobs = {f"{name}/{seed}": (name, seed) for seed in seeds for name in names}
    wanted = common_jobs.selected(list(jobs), _ONLY.value)
    data = load()
    for name in names:
        training.check(preset_of(name), data.train)
    out = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    started = time.perf_counter()
    results: dict[str, Any] = {"train_images": len(data.train), "real": real_scores(data)}
    for job in wanted:
        run_one(*jobs[job], data, out.directory)
        results["presets"] = finished(names, seeds, out.directory)
        text = common_tables.write(out, results, table.table)
        draw_samples(results, data.train, out.directory)
    print(text)
    print(f"{out.directory}: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    scripts.start(main)
