"""Flags that the programs define in the same words; each belongs to the program whose module calls the function."""

from typing import Any

from absl import flags

import outgen_jax as og

# absl gives a flag to the module that defines it. These are the caller's, in --help and in results.json.
flags.disclaim_key_flags()

Holder = flags.FlagHolder[Any]


def data_dir() -> Holder:
    """--data_dir of tfds."""
    return flags.DEFINE_string("data_dir", None, "Directory of prepared tfds data sets.")


def out(name: str) -> Holder:
    """--out: by default runs/`name`."""
    return flags.DEFINE_string("out", f"runs/{name}", "Directory of the run.")


def overwrite() -> Holder:
    """--overwrite: whether to begin anew, as `runs.open_run` does."""
    return flags.DEFINE_bool(
        "overwrite", False, "Delete the run that is in --out first; leave it out to resume."
    )


def output() -> Holder:
    """--output: what the network's outputs mean."""
    return flags.DEFINE_enum(
        "output",
        "softmax",
        ["softmax", "sigmoid", "values"],
        "What the network's last layer gives, and so what a target is: the logits of one distribution over classes, "
        "the logits of labels with a probability each, or numbers. Of the latter two, what --targets does not name is "
        "free.",
    )


def solver() -> tuple[Holder, Holder, Holder]:
    """--solver, --steps and --tolerance."""
    return (
        flags.DEFINE_enum(
            "solver",
            "exact",
            og.PRESETS,
            "The default solver, paper A's settings, or another preset.",
        ),
        flags.DEFINE_integer("steps", None, "Steps at most; by default the solver's own.", 0),
        flags.DEFINE_float(
            "tolerance",
            1e-5,
            "Distance at which an image is done: total variation, largest error of a probability, or RMS error, by "
            "--output.",
            1e-9,
        ),
    )


def quantize() -> Holder:
    """--quantize: whether saved images are corrected."""
    return flags.DEFINE_bool("quantize", True, "Correct what rounding to 8 bits changes.")


def robust() -> tuple[Holder, Holder]:
    """--robust_radius and --robust_steps: adversarial training."""
    return (
        flags.DEFINE_float(
            "robust_radius",
            None,
            "Train on adversarial examples within this L2 ball, pixels from 0 to 1; by default on the images "
            "themselves.",
            1e-6,
        ),
        flags.DEFINE_integer("robust_steps", 3, "Steps of the attack, with --robust_radius.", 1),
    )


def steps_of_attack(radius: Holder, steps: Holder) -> int | None:
    """The steps of the flags that `robust` defines; None without a radius.

    Raises:
      ValueError: steps without a radius, which would have no effect.
    """
    if radius.value is None and steps.present:
        raise ValueError(
            f"--robust_steps={steps.value} needs --robust_radius, such as --robust_radius=0.5; leave both out for "
            "ordinary training"
        )
    return None if radius.value is None else steps.value
