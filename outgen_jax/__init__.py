"""Images for which a frozen network returns the output you ask for.

The functions:

    synthesize                       changes images until the network returns the targets
    predict                          what a network returns for images
    quantize                         images of 8 bits that still meet their targets
    generate_dataset                 the same for sets of any length, on disk
    exact, smallest_change           solvers: the default, and its first part
    gauss_newton, gauss_newton_cg    with larger changes; for very many outputs
    gradient_descent, preset         any optax optimiser; those of paper A
    then, restarted, rescued         solvers made of others
    views                            a network that sees an image in several ways
    accelerate, as_written           a network with the fast convolutions of this package on CPU, and without

`targets`, `outputs`, `pixels`, `metrics`, `losses`, `models` and `data` are modules with functions of their own.

The equations of four papers, with the functions that implement them (A: output-targeted generation, Hirano, Iwamura
and Kise; B: data augmentation for GAN training, Suzuki and Suzuki;
C: attention GAN, Kataoka, Matsubara and Uehara;
D: intermediate constraint, Suzuki, Tanida, Kimata and Shouno):

    Eq. A2, A4   pixel <-> weight            pixels.arctan
    Fig. A5      low-pass filter             pixels.lowpass
    Eq. A6-A8    SGD, momentum SGD           gradient_descent, preset
    Eq. A9, A12  replaced training images    losses.replaced_data
    Eq. A10      KL divergence               losses.kl_divergence
    Eq. A11      soft-target cross-entropy   losses.cross_entropy
    Eq. B1       Inception Score             metrics.inception_score
    Eq. C1       recurrent cells             models.draw.Recurrent
    Eq. C2       read                        models.attention.read
    Eq. C2-C5    discriminator               models.draw.Discriminator
    Eq. C6-C8    generator                   models.draw.Generator
    Eq. C8       write                       models.attention.write
    Eq. C9       discriminator's loss        losses.discriminator
    Eq. C10      generator's loss            losses.generator
    Table D1     intermediate constraint     losses.intermediate_constraint
    Table D1     noise, blur                 data.distort.gaussian_noise, data.distort.gaussian_blur

Eq. A1, A3 and A5 only reshape arrays, so they need no code.
"""

from outgen_jax import data as data
from outgen_jax import losses as losses
from outgen_jax import metrics as metrics
from outgen_jax import models as models
from outgen_jax import outputs as outputs
from outgen_jax import pixels as pixels
from outgen_jax import targets as targets
from outgen_jax.generation.dataset import DatasetReport as DatasetReport
from outgen_jax.generation.dataset import generate_dataset as generate_dataset
from outgen_jax.models.acceleration.accelerate import accelerate as accelerate
from outgen_jax.models.acceleration.accelerate import as_written as as_written
from outgen_jax.solvers.combinators import rescued as rescued
from outgen_jax.solvers.combinators import restarted as restarted
from outgen_jax.solvers.combinators import then as then
from outgen_jax.solvers.descent import gradient_descent as gradient_descent
from outgen_jax.solvers.exact import exact as exact
from outgen_jax.solvers.gauss_newton import gauss_newton as gauss_newton
from outgen_jax.solvers.gauss_newton_cg import gauss_newton_cg as gauss_newton_cg
from outgen_jax.solvers.presets import PRESETS as PRESETS
from outgen_jax.solvers.presets import preset as preset
from outgen_jax.solvers.smallest_change import smallest_change as smallest_change
from outgen_jax.solvers.solver import Solver as Solver
from outgen_jax.synthesis.predict import predict as predict
from outgen_jax.synthesis.quantize import quantize as quantize
from outgen_jax.synthesis.synthesize import Result as Result
from outgen_jax.synthesis.synthesize import synthesize as synthesize
from outgen_jax.synthesis.views import views as views

__version__ = "0.2.0"
