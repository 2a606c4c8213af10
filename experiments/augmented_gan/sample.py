"""More samples of a generator that paper B's study has trained.

Purpose   New images of a finished job, of its averaged weights (`generator.npz`) and latent vectors of any seed.
Command   python -m experiments.augmented_gan.sample --run=runs/sets --job=faces/none/0 --seed=1 --out=more.npz
          A minute at most. --job is subject/set/seed, as --only of the study. Image i is the same whatever the number.
Output    --out gets the images, uint8 [number, H, W, C] under the name `images`, and a sheet of them as .png beside it.
"""

import json
from pathlib import Path

import jax
from flax import nnx

from experiments.augmented_gan import training
from experiments.common import flags as common_flags
from experiments.common import sampling
from outgen_jax import files, scripts
from outgen_jax.models import dcgan

_RUN, _JOB, _SEED, _NUMBER, _OUT = common_flags.more_samples("augmented_gan", "subject/set/seed")


def main(argv: list[str]) -> None:
    """Samples with parsed flags."""
    del argv
    out, run = Path(_OUT.value).expanduser(), Path(_RUN.value).expanduser()
    sampling.check_out(out)
    directories = {
        f"{path.parent.parent.name}/{path.parent.name}/{path.name.removeprefix('seed')}": path
        for path in sorted(run.glob("jobs/*/*/seed*"))
    }
    directory, _ = sampling.finished_job(_JOB.value, directories)
    about = json.loads((run / "run.json").read_text())
    some = files.load_arrays(next(directory.glob("samples_*.npz")))["images"]
    generator = dcgan.Generator(
        size=some.shape[1], width=about["width"], channels=some.shape[-1], rngs=nnx.Rngs(0)
    )
    player = training.load_generator(directory / "generator.npz", generator)
    key = jax.random.key(_SEED.value)
    sampling.write(out, training.sample(generator, player, key, _NUMBER.value))


if __name__ == "__main__":
    scripts.start(main)
