"""More samples of a generator that paper C's study has trained.

Purpose   New images of a finished job, of its averaged weights (last checkpoint) and latent vectors of any seed.
Command   python -m experiments.draw_gan.sample --run=runs/draw_gan --job=attention_plus/0 --seed=1 --out=more.npz
          A minute at most. --job is preset/seed, as --only of the study. Image i is the same whatever the number.
Output    --out gets the images, uint8 [number, H, W, C] under the name `images`, and a sheet of them as .png beside it.
"""

from pathlib import Path

import jax

from experiments.common import flags as common_flags
from experiments.common import sampling
from experiments.draw_gan import training
from outgen_jax import scripts
from outgen_jax.training import gan_samples

_RUN, _JOB, _SEED, _NUMBER, _OUT = common_flags.more_samples("draw_gan", "preset/seed")


def main(argv: list[str]) -> None:
    """Samples with parsed flags."""
    del argv
    out, run = Path(_OUT.value).expanduser(), Path(_RUN.value).expanduser()
    sampling.check_out(out)
    directories = {
        f"{path.parent.name}/{path.name.removeprefix('seed')}": path
        for path in sorted(run.glob("*/seed*"))
    }
    directory, found = sampling.finished_job(_JOB.value, directories)
    if "settings" not in found:
        raise ValueError(
            f"{directory} was written by a version that did not note the settings; sample with that version"
        )
    generator = training.trained(directory, found["settings"])
    z = gan_samples.latent_vectors(
        jax.random.key(_SEED.value), _NUMBER.value, generator.latent_shape
    )
    images = gan_samples.sample(generator, z, generate=_images)
    sampling.write(out, images)


def _images(generator: training.Generator, z: jax.Array) -> jax.Array:
    return training.to_images(generator(z))


if __name__ == "__main__":
    scripts.start(main)
