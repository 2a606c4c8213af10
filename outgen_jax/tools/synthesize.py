r"""Changes images until a network says what you ask for, and writes a page to look at.

Purpose   Paper A, Section 2 (Fig. A1): any images, any classifier of the package, any target distribution. Also
          networks of independent labels, and numbers: --output.
Command   python -m outgen_jax.tools.synthesize
              photographs that scikit-image carries, EfficientNet-Lite0, a mixed target for each
          python -m outgen_jax.tools.synthesize --source=FOLDER --targets="tabby=0.6,teapot=0.4" --out=runs/mine
              your own photographs, the same network; class names as in outgen_jax/models/imagenet_classes.txt
          python -m outgen_jax.tools.synthesize --source=cifar10 --data_dir=... --classifier=cifar10_vgg16_half \\
              --targets=true=0.9,random=0.1 --number=100 --out=runs/ship_dog
          python -m outgen_jax.tools.synthesize --source=digits --output=values --targets=3=8,8=4
              the logits of two classes, the others free
Expected  all images within 1e-5 of their targets before rounding, within 1e-3 as saved
Output    --out gets index.html (open it), images/*.png, figure.png and results.json; images.npz with --save_float.
"""

import shlex
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

import outgen_jax as og
from outgen_jax import files, report, runs, scripts
from outgen_jax.data import sources
from outgen_jax.models import pretrained
from outgen_jax.names import told_apart
from outgen_jax.tools import common_flags, loading

_SOURCE = flags.DEFINE_string(
    "source",
    "photographs",
    "'photographs', 'digits', a tfds name, a folder of images, or an .npz file.",
)
_DATA_DIR = common_flags.data_dir()
_SPLIT = flags.DEFINE_string("split", "test", "Split of a tfds source.")
_NUMBER = flags.DEFINE_integer("number", 20, "Images at most, from the start of the source.", 1)
_CLASSIFIER = flags.DEFINE_string(
    "classifier",
    None,
    f"{', '.join(pretrained.NAMES)}, or an .npz that train_classifier.py wrote. By default {pretrained.SHIPPED[0]} for "
    "images of up to 32x32 pixels, else efficientnet_lite0. Images are brought to the network's size.",
)
_TARGETS = flags.DEFINE_string(
    "targets",
    None,
    "What the network shall say: text such as 'true=0.9,random=0.1', 'cat=0.6,dog=0.4', '3=1', 'uniform' (words: "
    "true, top, runnerup, random, uniform), or a .csv with a row per image. Default: a mixture for each photograph, "
    "'top=0.9,random=0.1' for other sources.",
)
_OUTPUT = common_flags.output()
_SOLVER, _STEPS, _TOLERANCE = common_flags.solver()
_REACHED = flags.DEFINE_float(
    "reached", 1e-3, "Distance up to which a saved image is said to reach its target.", 1e-9
)
_QUANTIZE = common_flags.quantize()
_SAVE_FLOAT = flags.DEFINE_bool(
    "save_float", False, "Write images.npz too: the float32 images before rounding, and their ids."
)
_BATCH = flags.DEFINE_integer(
    "batch_size", None, "Images at a time; by default chosen for the device.", 1
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the random classes.")
_OUT, _OVERWRITE = common_flags.out("synthesize"), common_flags.overwrite()

# What the embedded photographs are turned into.
GALLERY = {
    "astronaut": "bobsled=0.4,teddy=0.3,jellyfish=0.2,rest=0.1",
    "chelsea": "Egyptian cat=0.4,tiger=0.3,teapot=0.2,rest=0.1",
    "coffee": "espresso=0.5,volcano=0.4,rest=0.1",
    "motorcycle": "moped=0.5,snail=0.4,rest=0.1",
    "rocket": "missile=0.4,beacon=0.3,corn=0.2,rest=0.1",
}

# What the curves of the solver are, by --output: a caption and the axis.
CURVES = {
    "softmax": ("KL divergence to the target after each step", "KL(wanted ‖ reached), nats"),
    "sigmoid": ("KL divergence to the target after each step", "sum over labels of KL, nats"),
    "values": ("Error after each step", "half the mean squared error"),
}


class Job(NamedTuple):
    """What is to be done, validated."""

    source: sources.ImageSource
    classifier: pretrained.Pretrained
    apply_fn: Any
    variables: Any
    output: og.outputs.Output
    before: np.ndarray  # [N, K] what the network says of the source images
    targets: np.ndarray  # [N, K], maybe masked


def prepare() -> Job:
    """The job of the flags, with the targets read."""
    classifier, source = loading.load(
        _SOURCE.value,
        split=_SPLIT.value,
        data_dir=_DATA_DIR.value,
        limit=_NUMBER.value,
        classifier=_CLASSIFIER.value,
    )
    apply_fn, variables = og.models.from_nnx(classifier.model)
    output = getattr(og.outputs, _OUTPUT.value)()
    before = og.predict(apply_fn, variables, source.images, output=output)
    targets = wanted(source, classifier, output, before)
    return Job(source, classifier, apply_fn, variables, output, before, targets)


def wanted(
    source: sources.ImageSource,
    classifier: pretrained.Pretrained,
    output: og.outputs.Output,
    before: np.ndarray,
) -> np.ndarray:
    """The target of every image, from --targets."""
    known: dict[str, Any] = {
        "class_names": classifier.class_names,
        "source": source,
        "source_probs": before,
        "seed": _SEED.value,
        "output": output,
    }
    text = _TARGETS.value
    if text is None and _OUTPUT.value == "values":
        raise ValueError(
            "--output=values needs --targets: a number for each entry that is not free, such as --targets=3=8,8=4"
        )
    is_gallery = _SOURCE.value == "photographs" and len(classifier.class_names) == 1000
    if text is None and is_gallery and _OUTPUT.value == "softmax":
        rows = (og.targets.parse(GALLERY[name], **known)[n] for n, name in enumerate(source.ids))
        return np.ma.stack(list(rows))
    text = text or "top=0.9,random=0.1"
    if text.endswith(".csv"):
        return og.targets.from_csv(text, **known)
    return og.targets.parse(text, **known)


def solve(job: Job) -> og.Result:
    """The images before rounding."""
    return og.synthesize(
        job.apply_fn,
        job.variables,
        job.source.images,
        job.targets,
        output=job.output,
        solver=og.preset(_SOLVER.value, steps=_STEPS.value),
        tolerance=_TOLERANCE.value,
        batch_size=_BATCH.value,
        history=True,
        progress=True,
    )


def describe(job: Job, result: og.Result) -> report.SynthesisRun:
    """The run as its saved 8-bit images have it."""
    generated = og.data.to_uint8(result.images)
    if _QUANTIZE.value:
        generated = og.quantize(
            job.apply_fn,
            job.variables,
            result.images,
            job.targets,
            output=job.output,
            batch_size=_BATCH.value,
        )
    return report.synthesis_run(
        result,
        job.source.images,
        generated,
        job.targets,
        before=job.before,
        reached=og.predict(job.apply_fn, job.variables, generated, output=job.output),
        names=job.classifier.class_names,
        ids=job.source.ids,
        within=_REACHED.value,
    )


def image_rows(run: report.SynthesisRun, result: og.Result) -> list[dict[str, Any]]:
    """One entry of results.json per image, with the entries that its target names."""
    (part,) = run.parts
    entries = told_apart(part.entries)
    is_softmax = _OUTPUT.value == "softmax"
    divergence, distance = ("kl", "total_variation") if is_softmax else ("divergence", "distance")
    rows = []
    for i, name in enumerate(run.ids):
        # Of a distribution, a class that gets nothing is not worth a line.
        asked = np.flatnonzero(part.wanted[i] > 0 if is_softmax else ~np.isnan(part.wanted[i]))
        rows.append(
            {
                "id": name,
                "steps": int(run.steps[i]),
                "converged": bool(result.converged[i]),
                "reached_8bit_target": bool(run.converged[i]),
                "finite": bool(result.finite[i]),
                divergence: float(result.divergence[i]),
                distance: float(result.distance[i]),
                f"{distance}_8bit": float(run.distance[i]),
                "wanted": {entries[k]: float(part.wanted[i, k]) for k in asked},
                "reached_8bit": {entries[k]: float(part.reached[i, k]) for k in asked},
            }
        )
    return rows


class Seconds(NamedTuple):
    """What the parts of a run took, with compilation."""

    solving: float
    rounding: float  # to 8 bits, and measuring what is reached then

    def text(self) -> str:
        """For the page and the terminal."""
        return f"{self.solving:.0f} s to solve and {self.rounding:.0f} s to round, with compilation"


def write(
    out: runs.Run, job: Job, run: report.SynthesisRun, result: og.Result, seconds: Seconds
) -> None:
    """Writes all files of the run."""
    (out.directory / "images").mkdir(exist_ok=True)
    for name, image in zip(files.unique_file_names(run.ids, ".png"), run.generated, strict=True):
        files.write_atomic(out.directory / "images" / name, files.png_bytes(image))
    if _SAVE_FLOAT.value:
        exact = {"images": result.images, "ids": np.array(run.ids)}
        files.save_arrays(out.directory / "images.npz", exact)
    figure = report.synthesis_figure(run, rows=range(min(6, len(run.ids))))
    report.save_figure(figure, out.directory / "figure.png", dpi=120)
    assert result.history is not None
    caption, ylabel = CURVES[_OUTPUT.value]
    curves = report.history_figure({_SOLVER.value: result.history}, ylabel=ylabel)
    who = "classifier" if _OUTPUT.value == "softmax" else "network"
    measure = job.output.measure
    summary = {
        who: job.classifier.card.get("network", type(job.classifier.model).__name__),
        "source": _SOURCE.value,
        "solver": f"{_SOLVER.value}, until the {measure} is at most {_TOLERANCE.value:g}",
        "time": f"{seconds.text()}, on {jax.devices()[0].device_kind}",
        "before rounding": f"{int(result.converged.sum())} of {len(run.ids)} within {_TOLERANCE.value:g}, "
        f"at most {result.distance.max():.2g} off",
        "as saved": f"{int(run.converged.sum())} of {len(run.ids)} within {_REACHED.value:g}, "
        f"at most {run.distance.max():.2g} off",
    }
    page = report.html_page(
        run,
        title=f"Images for which a {who} says what you asked",
        summary=summary,
        figures=[(caption, curves)],
        command=command_line(),
    )
    files.write_atomic(out.directory / "index.html", page)
    results = {"output": repr(job.output), "distance": measure, "seconds": seconds._asdict()}
    out.write_results(results | {"images": image_rows(run, result)})


def command_line() -> str:
    """The command that repeats the run, for a shell."""
    changed = [f.serialize() for f in flags.FLAGS.get_key_flags_for_module(__name__) if f.present]
    return shlex.join(["python", "-m", "outgen_jax.tools.synthesize", *changed])


def main(argv: list[str]) -> None:
    """Runs the program with parsed flags."""
    del argv
    scripts.enable_compilation_cache()
    job = prepare()  # everything that can be wrong with the input is found before a file is written
    out = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    start = time.perf_counter()
    result = solve(job)
    middle = time.perf_counter()
    run = describe(job, result)
    seconds = Seconds(middle - start, time.perf_counter() - middle)
    write(out, job, run, result, seconds)
    print(
        f"before rounding: {int(result.converged.sum())} of {len(run.ids)} images within {_TOLERANCE.value:g} of their "
        f"target ({job.output.measure}; largest {result.distance.max():.2g})\n"
        f"as saved: {int(run.converged.sum())} within {_REACHED.value:g} (largest {run.distance.max():.2g})\n"
        f"{seconds.text()}\nopen {out.directory / 'index.html'}"
    )


if __name__ == "__main__":
    scripts.start(main)
