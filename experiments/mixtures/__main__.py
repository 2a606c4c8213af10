"""Mixtures that people see: one, two and three classes in an image, on a robust and on an ordinary classifier.

Purpose   Paper A promises images with the features of several classes. On an ordinary classifier the change looks like
          noise. Is it visible on a classifier that was trained against small changes, and do other networks see it?
Command   python -m experiments.mixtures --preset=digits --data_dir=...
          python -m experiments.mixtures --preset=cifar10 --data_dir=...
Networks  that the presets name and the package does not ship: README.md has the commands that train them. Judges are
          classifiers that took no part.
Expected  Judges agree with the target more on images of the robust network. Measured: README.md
Output    --out gets results.json (numbers of every job), table.md, mixtures.png, strip.png, and the sheets
          for viewers: viewers/sheet_1.png and so on of images that begin with test images, viewers_from_noise/ of those
          that begin with noise. The same command resumes.
Viewers   look at the sheets and write answers to --out/viewers/answers/NAME.json, {"1": ["cat", "ship"], "2": [], ...},
          and likewise in viewers_from_noise/. The same command then counts them.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments.common import flags as common_flags
from experiments.common import jobs as common_jobs
from experiments.common import loading, target_text
from experiments.common import tables as common_tables
from experiments.mixtures import figures, judging, starts, study, viewers
from experiments.mixtures.presets import PRESETS
from experiments.mixtures.starts import Mixtures
from experiments.mixtures.study import NETWORKS, STARTS, Classifier, Network, Options
from experiments.mixtures.table import table
from outgen_jax import report, runs, scripts
from outgen_jax.data.image_source import ImageSource

_PRESET = flags.DEFINE_enum(
    "preset", "digits", PRESETS, "What flags not given stand for: presets.py of this folder."
)
_DATASET = flags.DEFINE_string("dataset", None, "tfds name, .npz file, or class folders.")
_DATA_DIR = common_flags.data_dir()
_SPLIT = common_flags.unchosen_split()
_ORDINARY = flags.DEFINE_string("ordinary", None, "Name or .npz of the ordinary classifier.")
_ROBUST = flags.DEFINE_list("robust", None, "Names or .npz of robust classifiers that must agree.")
_MIRRORED = flags.DEFINE_bool(
    "mirrored", None, "Whether these must agree on the mirror image of each image as well."
)
_JUDGES = flags.DEFINE_list("judges", None, "Names or .npz of classifiers that took no part.")
_SHOWN = flags.DEFINE_multi_string(
    "shown", None, "Target of a row of mixtures.png, such as 3=0.5,8=0.5; once for each row."
)
_ENDS = flags.DEFINE_list("ends", None, "The two classes of strip.png.")
_STEPS = flags.DEFINE_integer("steps", 10, "From one end of strip.png to the other.", 1)
_PARTS = flags.DEFINE_multi_integer(
    "parts", [2, 3], "Number of classes of random mixtures; once for each number.", 2
)
_NUMBER = common_flags.number(200, of="split", at_least=4)
_VIEWED = flags.DEFINE_integer("viewed", 20, "Images of each network that viewers see.", 1)
_TOLERANCE = flags.DEFINE_float("tolerance", None, "Total variation of a finished image.", 1e-9)
_SEARCH = flags.DEFINE_integer(
    "search",
    None,
    "Steps of og.smallest_change, for robust ones; by default the default solver.",
    1,
)
_NOISE_MEAN = flags.DEFINE_float(
    "noise_mean", None, "Mean of the pixels of the noise to start from, in [0, 1].", 0, 1
)
_NOISE_STD = flags.DEFINE_float("noise_std", None, "Standard deviation of these pixels.", 0)
_SEED = common_flags.seed("noise, classes and shares")
_OUT = common_flags.out("mixtures")
_OVERWRITE = common_flags.overwrite()

_SHEET_DPI = 90
_EACH = 2  # sources of each start in mixtures.png


class Start(NamedTuple):
    """The images that mixtures start from."""

    images: np.ndarray  # [N, H, W, C] uint8
    labels: np.ndarray | None  # [N], where they have any


class Case(NamedTuple):
    """What the parts of a run share."""

    names: tuple[str, ...]
    networks: dict[str, Network]
    judges: dict[str, Classifier]
    starts: dict[str, Start]
    options: Options


def load() -> Case:
    """The networks, the judges and the starts of the flags."""
    options = Options(
        tolerance=_TOLERANCE.value,
        noise_mean=_NOISE_MEAN.value,
        noise_std=_NOISE_STD.value,
        seed=_SEED.value,
    )

    def start(classifier: str) -> loading.Start:
        return loading.load_labelled(
            classifier,
            _DATASET.value,
            split=_SPLIT.value,
            data_dir=_DATA_DIR.value,
            number=_NUMBER.value,
        )

    ordinary, *robust = (start(name) for name in (_ORDINARY.value, *_ROBUST.value))
    common_jobs.check_names([name_of_judge(path) for path in _JUDGES.value], flag="judges")
    source: ImageSource = robust[0].source
    noise = options.noise(len(source.images), source.images.shape[1:])
    agreeing = study.together(
        [one.network for one in robust], mirrored=_MIRRORED.value, steps=_SEARCH.value
    )
    return Case(
        robust[0].class_names,
        dict(zip(NETWORKS, (study.together([ordinary.network]), agreeing), strict=True)),
        {name_of_judge(path): start(path).network for path in _JUDGES.value},
        dict(zip(STARTS, (Start(source.images, source.labels), Start(noise, None)), strict=True)),
        options,
    )


def name_of_judge(path: str) -> str:
    """The name of a shipped network, or the directory of a run's weights.

    >>> name_of_judge("runs/lenet_seed1/weights.npz"), name_of_judge("mnist_lenet")
    ('lenet_seed1', 'mnist_lenet')
    """
    found = Path(path)
    return found.parent.name if found.stem == "weights" else found.stem


def check(case: Case) -> None:
    """Refuses, before anything is written, flags with which a part of the run would fail.

    Raises:
      ValueError: the name of the flag, and what it must be.
    """
    if len(_ENDS.value) != 2 or len(set(_ENDS.value) & set(case.names)) != 2:
        raise ValueError(
            f"--ends={','.join(_ENDS.value)} must be two of the classes {', '.join(case.names)}"
        )
    if max(_PARTS.value) >= len(case.names):
        raise ValueError(
            f"--parts={max(_PARTS.value)} must be below the number of classes, {len(case.names)}: the image's own is "
            "not named"
        )
    number = len(case.starts["test images"].images)
    viewers.check_number(_VIEWED.value, networks=len(case.networks), sources=number)
    shown_sources(case, shown_mixtures(case))
    strip_sources(case)


def shown_sources(case: Case, shown: list[Mixtures]) -> np.ndarray:
    """The sources of mixtures.png."""
    return first_of_each(case, {int(k) for row in shown for k in row.classes[0]}, _EACH)


def strip_sources(case: Case) -> np.ndarray:
    """The sources of strip.png."""
    return first_of_each(case, {case.names.index(name) for name in _ENDS.value}, 1)


def shown_mixtures(case: Case) -> list[Mixtures]:
    """The targets of mixtures.png, one row each."""
    rows = [
        target_text.parse_full(text, class_names=case.names, num_images=1)[0]
        for text in _SHOWN.value
    ]
    order = [np.argsort(-row, kind="stable")[: (row > 0).sum()] for row in rows]
    return [Mixtures(k[None], row[None, k]) for row, k in zip(rows, order, strict=True)]


def first_of_each(case: Case, avoid: set[int], count: int) -> np.ndarray:
    """The sources of a figure: the first of each start whose label no target names, [S, H, W, C].

    Raises:
      ValueError: there are too few.
    """
    shown = []
    for name, (images, labels) in case.starts.items():
        free = [
            row for row in range(len(images)) if labels is None or int(labels[row]) not in avoid
        ]
        if len(free) < count:
            raise ValueError(
                f"--number={_NUMBER.value}: {len(free)} of the {name} are of a class that no shown target names, and "
                f"the figure takes {count}; raise the number"
            )
        shown.append(images[free[:count]])
    return np.concatenate(shown)


def draw_mixtures(case: Case, run: runs.Run) -> None:
    """mixtures.png."""
    wanted = shown_mixtures(case)
    sources = shown_sources(case, wanted)
    targets = np.concatenate([row.targets(len(case.names)) for row in wanted])
    panels = []
    for name, network in case.networks.items():
        compute = functools.partial(_images, network, sources, targets, case.options)
        kept = runs.kept(run.directory / "cache" / f"mixtures {name}.npz", compute)
        panels.append(figures.Panel(network.titled(name), kept["images"]))
    labels = [figures.mixture_label(0, row, case.names) for row in wanted]
    figure = figures.mixtures_figure(sources, panels, labels)
    report.save_figure(figure, run.directory / "mixtures.png")


def draw_strip(case: Case, run: runs.Run) -> None:
    """strip.png: from a photograph and from noise, on each network."""
    first, last = (case.names.index(name) for name in _ENDS.value)
    mixtures = starts.path(first, last, _STEPS.value)
    sources = strip_sources(case)
    rows, notes = {}, {}
    judge = next(iter(case.judges.values()))
    for name, network in case.networks.items():
        compute = functools.partial(
            _images, network, sources, mixtures.targets(len(case.names)), case.options
        )
        kept = runs.kept(run.directory / "cache" / f"strip {name}.npz", compute)["images"]
        for index, start in enumerate(case.starts):
            row = f"{network.titled(name)}\nfrom {start.removesuffix('s')}"
            rows[row] = kept[:, index]
            notes[row] = judging.among_named(judging.logits(judge, rows[row]), mixtures)[:, 1]
    figure = figures.strip_figure(rows, notes, mixtures, case.names)
    report.save_figure(figure, run.directory / "strip.png")


def _images(
    network: Network, sources: np.ndarray, targets: np.ndarray, options: Options
) -> dict[str, np.ndarray]:
    return {"images": study.every_pair(network, sources, targets, options)}


def ask_judges(case: Case, run: runs.Run) -> dict[str, Any]:
    """Random mixtures, and what the judges say of them."""
    jobs = []
    for start, images in case.starts.items():
        for parts in _PARTS.value:
            for name, network in case.networks.items():
                print(f"{parts} classes from {start}: {name}", flush=True)
                compute = functools.partial(
                    study.random_job,
                    network=network,
                    judges=case.judges,
                    sources=images.images,
                    labels=images.labels,
                    parts=parts,
                    num_classes=len(case.names),
                    options=case.options,
                )
                job = f"{parts} classes, {start}, {name}"
                arrays = runs.kept(run.directory / "cache" / f"{job}.npz", compute)
                about = {"start": start, "parts": parts, "network": name}
                jobs.append({**about, **study.numbers(study.judged(arrays))})
    return {"jobs": jobs}


def ask_viewers(case: Case, run: runs.Run, start_name: str, directory_name: str) -> dict[str, Any]:
    """Sheets of bare images that begin with one start, and the answers of the viewers that looked at them."""
    start = case.starts[start_name]
    compute = functools.partial(
        viewers.viewed_job,
        case.networks,
        start.images,
        start.labels,
        count=_VIEWED.value,
        num_classes=len(case.names),
        options=case.options,
    )
    viewed = viewers.Viewed(**runs.kept(run.directory / "cache" / f"{directory_name}.npz", compute))
    directory = run.directory / directory_name
    directory.mkdir(exist_ok=True)
    for index, figure in enumerate(viewers.sheets(viewed.images)):
        # Smooth images make large files.
        report.save_figure(figure, directory / f"sheet_{index + 1}.png", dpi=_SHEET_DPI)
    answers = viewers.read_answers(directory / "answers", case.names, len(viewed.images))
    return {directory_name: viewers.numbers(viewed, answers, case.names)}


def main(argv: list[str]) -> None:
    """Runs the study with parsed flags."""
    del argv
    scripts.enable_compilation_cache()
    scripts.apply_preset(PRESETS[_PRESET.value])
    case = load()
    check(case)
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    draw_mixtures(case, run)
    draw_strip(case, run)
    answers: dict[str, Any] = {}
    for start, directory in viewers.DIRECTORIES.items():
        answers |= ask_viewers(case, run, start, directory)
    print(common_tables.write(run, answers | ask_judges(case, run), table))


if __name__ == "__main__":
    scripts.start(main)
