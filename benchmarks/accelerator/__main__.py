"""What does one GPU or TPU reach, and which share of its peak is that? The whole campaign in one command.

Subject   VGG16 of full width on 32×32 images, random weights and images. First the peaks of the device: a matrix
          product in each arithmetic, and the bandwidth of its memory. Then a call on 512 images, as a first sign of
          life; a step of paper A's SGD in three arithmetics; `og.exact`; larger and smaller batches; a set of the size
          of CIFAR-10's in bfloat16; a step of `og.smallest_change`.
Method    Every part is kept as it ends. A part for which too little of --seconds is left is left out, and the results
          say so: the same command then runs it. Medians of up to 5 calls, without compilation.
Command   python -m benchmarks.accelerator
Duration  at most 8 minutes are meant; it has not been run on an accelerator yet. A part that has begun is not
          interrupted.
Output    the tables, and --out gets table.md, figure.png (the roofline) and results.json.
"""

import functools
from typing import Any

from absl import flags

import outgen_jax as og
from benchmarks.accelerator import campaign, parts
from benchmarks.accelerator.campaign import Found, Part
from benchmarks.accelerator.figure import figure
from benchmarks.accelerator.table import table
from benchmarks.harness.machine import machine
from benchmarks.harness.workload import Workload
from outgen_jax import files, runs, scripts
from outgen_jax.report import plotting
from outgen_jax.tools import common_flags

_SECONDS = flags.DEFINE_float("seconds", 450, "For all parts; later ones are left out.", 0)
_BATCH = flags.DEFINE_integer("batch_size", 1024, "Images of the batch that all parts have.", 1)
_OTHERS = flags.DEFINE_list("other_batch_sizes", ["4096", "128"], "Of SGD in bfloat16.")
_FIRST = flags.DEFINE_integer("first_images", 512, "Images of the first call.", 1)
_SET = flags.DEFINE_integer("set_images", 50_000, "Images of the whole set.", 1)
_SET_UPDATES = flags.DEFINE_integer("set_updates", 100, "Updates of the whole set.", 1)
_UPDATES = flags.DEFINE_integer("updates", 25, "Updates in a call; the engine makes 25.", 1)
_MATRIX = flags.DEFINE_integer("matrix", 16_384, "Rows of the matrices that are multiplied.", 1)
_VECTOR = flags.DEFINE_integer("vector_mib", 1024, "MiB of a vector of the bandwidth.", 1)
_WIDTH = flags.DEFINE_float("width", 1.0, "Width multiplier of VGG16.", 1 / 64)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "CIFAR-10 for the set; random by default.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, images and targets.", 0)
_ONLY = flags.DEFINE_list("only", [""], "Parts to run now, by how their names begin.")
_OUT = common_flags.out("benchmarks/accelerator")
_OVERWRITE = common_flags.overwrite()

# Seconds that must be left for a part to begin. Guesses: no accelerator has been measured.
_QUICK, _COMPILES, _COMPILES_MUCH = 10.0, 45.0, 120.0


def all_parts() -> list[Part]:
    """The campaign, what matters most first."""
    workload = Workload(_WIDTH.value, _BATCH.value, _SEED.value)
    sgd, smallest = og.preset("sgd"), og.smallest_change()

    def product(arithmetic: str) -> Part:
        measure = functools.partial(parts.product, _MATRIX.value, arithmetic)
        return Part(f"product_{arithmetic}", measure, _QUICK)

    def step(name: str, solver: Any, passes: int, size: int, arithmetic: str) -> Part:
        batch = workload._replace(batch_size=size)
        return Part(
            f"{name}_{size}_{arithmetic}",
            lambda: parts.steps(batch, solver, passes, arithmetic, updates=_UPDATES.value),
            _COMPILES,
        )

    def call(name: str, solver: Any, passes: int, size: int, reserve: float) -> Part:
        batch = workload._replace(batch_size=size)
        return Part(name, lambda: parts.whole_call(batch, solver, passes=passes), reserve)

    def whole_set() -> dict[str, Any]:
        images = workload._replace(batch_size=_SET.value)
        return parts.whole_set(images, updates=_SET_UPDATES.value, data_dir=_DATA_DIR.value)

    def of_sgd(size: int, arithmetic: str) -> Part:
        return step("sgd", sgd, parts.SGD_PASSES, size, arithmetic)

    others = [of_sgd(size, "bfloat16") for size in other_batch_sizes()]
    return [
        *(product(arithmetic) for arithmetic in parts.ARITHMETICS),
        Part("stream", lambda: parts.stream(_VECTOR.value), _QUICK),
        call("first_call", sgd, parts.SGD_PASSES, _FIRST.value, _COMPILES),
        *(of_sgd(_BATCH.value, arithmetic) for arithmetic in parts.ARITHMETICS),
        call("exact", None, parts.EXACT_PASSES, _BATCH.value, _COMPILES_MUCH),
        *others[:1],
        Part("whole_set", whole_set, _COMPILES),
        *others[1:],
        step("smallest_change", smallest, parts.EXACT_PASSES, _BATCH.value, "float32"),
    ]


def other_batch_sizes() -> list[int]:
    """Of the flag, which may name none."""
    found = _OTHERS.value
    if wrong := [text for text in found if not text.isdecimal() or int(text) < 1]:
        raise ValueError(
            f"--other_batch_sizes: {wrong[0]!r} must be a number of images, such as 128"
        )
    return [int(text) for text in found]


def main(argv: list[str]) -> None:
    del argv
    # Without a cache of compiled programs: the time of compilation is measured.
    chosen = [part for part in all_parts() if part.name.startswith(tuple(_ONLY.value))]
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)

    def tell(found: Found) -> None:
        """Writes what there is: the machine may be taken away at any time."""
        files.write_atomic(run.directory / "table.md", table(found._asdict()))
        run.write_results({**machine(), **found._asdict()})
        print(f"{len(found.parts) + len(found.left_out)} of {len(chosen)} parts", flush=True)

    found = campaign.run(chosen, run.directory / "cache", _SECONDS.value, tell)
    drawn = figure(found._asdict())
    if drawn is not None:
        plotting.save_figure(drawn, run.directory / "figure.png")
    print(table(found._asdict()))


if __name__ == "__main__":
    scripts.start(main)
