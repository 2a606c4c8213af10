r"""Paper B: which augmentation of a thousand images helps a GAN?

Purpose   The six experiments of Suzuki and Suzuki on two subjects (Figs B5 to B12). To the originals come images of
          more contrast, negatives, mirrored, upside-down or generated ones: one kind or two, as many or twice as many.
          Beyond the paper: augmentation in front of the discriminator. All GANs have equal size and length.
Command   python -m experiments.augmented_gan --preset=cpu --subjects=faces=DIR,dogs=DIR --images=1000,196 --out=...
          python -m experiments.augmented_gan --preset=discriminator --subjects=faces=DIR --out=...
          python -m experiments.augmented_gan --preset=paper --only=faces/invert/0 --subjects=... --weights=FILE (a GPU)
          The same command resumes, also after a kill. At most one twelfth of a training (preset cpu) is lost.
Sets      What joins the originals: none, contrast, invert, flip_left_right, flip_up_down, generated. A + mixes two
          kinds in equal parts; @2 adds twice as many images as there are originals. Generated images come from the GAN
          of the same seed on the originals. differentiable and adaptive train on the originals alone and change images
          in front of the discriminator (Zhao et al. 2020; Karras et al. 2020); =color+translation names the changes.
Expected  In the paper, inversion has the highest Inception Score; mirrored and generated images score lower than no
          augmentation, and twice as many images lower than as many in five of six cases. It reads a low score as good.
Output    --out gets results.json (numbers of every seed), table.md, figures, real/ (features of the real images) and
          jobs/ (of each job: scores.json, samples, generator.npz, the origin of each image of its set, and the
          classes of every generated image).
"""

import re

import tqdm
from absl import flags

from experiments.augmented_gan import figures, jobs, scores, table, training
from experiments.augmented_gan.jobs import Data, Job, Study
from experiments.augmented_gan.presets import CONTROL, PRESETS, SCHEDULES, Arm, Settings, parse
from experiments.augmented_gan.training import Originals
from experiments.common import flags as common_flags
from experiments.common import jobs as common_jobs
from experiments.common import tables as common_tables
from outgen_jax import runs, scripts
from outgen_jax.data import sources

_PRESET = flags.DEFINE_enum(
    "preset", "cpu", PRESETS, "What flags not given stand for: presets.py of this folder."
)
_SUBJECTS = flags.DEFINE_list(
    "subjects", ["digits=digits"], "name=data set,...: tfds name, .npz file, folder, or 'digits'."
)
_IMAGES = flags.DEFINE_list("images", None, "Originals: one number, or one for each subject.")
_SETS = flags.DEFINE_list("sets", None, "What is compared, see above; by default everything.")
_SEEDS = flags.DEFINE_integer("seeds", None, "Seeds 0, 1, ... of each set.", 1)
_ONLY = flags.DEFINE_list("only", [], "Jobs to run now, as subject/set/seed; by default all.")
_SIZE = flags.DEFINE_integer("size", None, "Side of the images, a power of two.", 16)
_WIDTH = flags.DEFINE_integer("width", None, "Channels next to the image, both networks.", 1)
_BATCH = flags.DEFINE_integer("batch_size", None, "Images an update.", 2)
_UPDATES = flags.DEFINE_integer("updates", None, "Of every GAN.", 1)
_SAMPLES = flags.DEFINE_integer("samples", None, "Generated images to score.", 1)
_NETWORK = flags.DEFINE_enum(
    "network", None, scores.NETWORKS, "That scores rest on; 'pixels' says nothing."
)
_WEIGHTS = flags.DEFINE_string("weights", None, "Its file, where it is not the installed one.")
_RESAMPLES = flags.DEFINE_integer("resamples", None, "Of the bootstrap intervals.", 2)
_DATA_DIR = common_flags.data_dir()
_OUT = common_flags.out("augmented_gan")
_OVERWRITE = common_flags.overwrite()


def settings_of_flags() -> Settings:
    """How every GAN is trained."""
    schedule = SCHEDULES[_PRESET.value]
    if _UPDATES.value % schedule.rounds:
        raise ValueError(
            f"--updates={_UPDATES.value} must be a multiple of {schedule.rounds}, the rounds of "
            f"--preset={_PRESET.value}"
        )
    known = schedule._replace(curve_samples=min(schedule.curve_samples, _SAMPLES.value))
    return Settings(
        size=_SIZE.value,
        width=_WIDTH.value,
        batch_size=_BATCH.value,
        updates=_UPDATES.value,
        **known._asdict(),
    )


def arms_of_flags() -> list[Arm]:
    """What is compared."""
    arms = [parse(name) for name in _SETS.value]
    names = [arm.name for arm in arms]
    common_jobs.check_names(names, flag="sets")
    if any("generated" in arm.kinds for arm in arms) and CONTROL not in names:
        raise ValueError(
            f"--sets: generated images come from the GAN on the originals alone; add {CONTROL!r}"
        )
    return arms


def wanted_jobs(subjects: list[str], arms: list[Arm], only: list[str]) -> list[Job]:
    """Jobs to run now, after the jobs that they need.

    Raises:
      ValueError: --only names a job that this run does not have.
    """
    ordered = sorted(arms, key=lambda arm: arm.name != CONTROL)
    every = [Job(s, arm, seed) for seed in range(_SEEDS.value) for s in subjects for arm in ordered]
    selected = common_jobs.selected([job.name for job in every], only)
    chosen = [job for job in every if job.name in selected]
    needed = {(job.subject, job.seed) for job in chosen if "generated" in job.arm.kinds}
    return [
        job
        for job in every
        if job in chosen or (job.arm.name == CONTROL and (job.subject, job.seed) in needed)
    ]


def load() -> list[Data]:
    """The subjects' images, checked against the other flags before anything is written."""
    scores.check_number("--samples", _SAMPLES.value)
    numbers = _IMAGES.value * (len(_SUBJECTS.value) if len(_IMAGES.value) == 1 else 1)
    if len(numbers) != len(_SUBJECTS.value) or not all(n.isdecimal() for n in numbers):
        raise ValueError(
            f"--images={','.join(_IMAGES.value)}: give one number, or one for each of {len(_SUBJECTS.value)} subjects"
        )
    found = [_load_subject(*pair) for pair in zip(_SUBJECTS.value, map(int, numbers), strict=True)]
    common_jobs.check_names([data.name for data in found], flag="subjects")
    channels = {data.originals.images.shape[-1] for data in found}
    if len(channels) > 1:
        raise ValueError("--subjects are grey and in colour; run them one by one")
    return found


def _load_subject(text: str, number: int) -> Data:
    name, _, spec = text.partition("=")
    if not spec or not re.fullmatch(r"[\w-]+", name):
        raise ValueError(
            f"--subjects: {text!r} must be a name and a data set, such as faces=DIRECTORY"
        )
    size = (_SIZE.value, _SIZE.value)
    source = sources.load(
        spec, split="train", data_dir=_DATA_DIR.value, size=size, limit=number + _SAMPLES.value
    )
    if source.skipped:
        print(f"{name}: {len(source.skipped)} files left out, the first: {source.skipped[0]}")
    if len(source.images) < number:
        raise ValueError(
            f"--subjects: {name} has {len(source.images)} images, fewer than the {number} of --images; ask for "
            f"{len(source.images)} or fewer (--images takes one number for each subject)"
        )
    scores.check_number(f"--images of {name}", number)
    if number < _BATCH.value:
        raise ValueError(f"--batch_size={_BATCH.value} exceeds the {number} originals of {name}")
    originals = Originals(source.images[:number], source.ids[:number])
    return Data(name, originals, source.images[number:])


def main(argv: list[str]) -> None:
    """Runs the study with parsed flags."""
    del argv
    scripts.enable_compilation_cache()
    scripts.apply_preset(PRESETS[_PRESET.value])
    settings, arms = settings_of_flags(), arms_of_flags()
    network = scores.network_of(_NETWORK.value, _WEIGHTS.value)
    every = load()
    numbers = [len(data.originals.ids) for data in every]
    wanted = wanted_jobs([data.name for data in every], arms, _ONLY.value)
    training.program(settings, every[0].originals.images.shape[-1], "off")  # refuses sizes
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    study = Study(
        run.directory,
        settings,
        training.capacity(arms, numbers),
        {d.name: max(a.generated(n) for a in arms) for d, n in zip(every, numbers, strict=True)},
        network,
        _SAMPLES.value,
        _RESAMPLES.value,
    )
    looks = {data.name: jobs.look_at_real(study, data) for data in every}
    by_name = {data.name: data for data in every}
    with tqdm.tqdm(total=len(wanted) * settings.rounds, unit="round", mininterval=1) as bar:
        for job in wanted:
            if (jobs.job_directory(study, job) / "scores.json").exists():
                bar.update(settings.rounds)
            else:
                jobs.run_job(study, job, by_name[job.subject], looks[job.subject], bar)
    results = jobs.collect(study, every, looks, arms, _SEEDS.value)
    text = common_tables.write(run, results, table.table)
    originals = {data.name: data.originals.images for data in every}
    samples = jobs.first_samples(study, results)
    figures.save_all(study.directory, results, originals, samples)
    print(text)


if __name__ == "__main__":
    scripts.start(main)
