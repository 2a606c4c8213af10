"""The arms: how each is written, and the training step that it stands for."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import outgen_jax as og
from outgen_jax.networks import ApplyFn
from outgen_jax.solvers.objective import Objective
from outgen_jax.solvers.solver import Problem, Solver
from outgen_jax.training import (
    adversarial_examples,
    batch_shares,
    boundary_distillation,
    objectives,
)

# What an arm's name says: whether it has a fraction, and where its images come from.
SETS = ("sgd", "exact")  # generated before training
STEPS = ("during", "own")  # generated in the step, by the frozen classifier or the network itself
# A share of every batch is changed within an L2 ball of the radius that is attacked: by the projected gradient, by one
# step of it from a random start, or at random.
CHANGES = ("pgd", "fgsm", "noise")
# A share of every batch is moved to the frozen classifier's boundaries, for distillation: by the steps of Heo et al.
# (2019), or by the solver.
BOUNDARY = ("heo", "boundary")
CONTROLS = ("plain", "smoothing", "mixup", "cutmix", "distillation")
LABEL_SMOOTHING = 0.1
_PGD_STEPS = 7  # of the training of Madry et al. (2018)
_REPLACED = objectives.replaced()  # one object, so that all fractions share a compiled program


class Steering(NamedTuple):
    """How images are generated in the step, and towards what."""

    solver: Solver  # all its updates are made
    classes: int  # that a target names: each has a row of the Jacobian, the others share one
    bank: jax.Array  # targets [K, D, K]: for an image of class k one of the D of row k is drawn


class Arm(NamedTuple):
    """One row of the table."""

    name: str  # as it was written
    method: str
    fraction: float  # of the training set or of every batch that is generated
    multiple: float  # of the epochs that the other arms have


def parse(name: str) -> Arm:
    """`method[:fraction][@multiple]`, such as plain, exact:0.3, during:0.3, pgd:0.5, plain@2.

    Raises:
      ValueError: anything else.
    """
    body, _, multiple = name.partition("@")
    method, _, fraction = body.partition(":")
    with_fraction = (*SETS, *STEPS, *CHANGES, *BOUNDARY)
    needs_fraction = method in with_fraction
    if not needs_fraction and method not in CONTROLS:
        raise ValueError(
            f"--arms: no method {method!r} in {name!r}; use one of {', '.join(with_fraction)} with "
            f"a fraction (exact:0.3), or of {', '.join(CONTROLS)}; @2 trains twice as long"
        )
    if needs_fraction != (":" in body):
        wanted = f"a fraction, such as {method}:0.3" if needs_fraction else "no fraction"
        raise ValueError(f"--arms: {method!r} takes {wanted}; got {name!r}")
    try:
        arm = Arm(name, method, float(fraction or 0), float(multiple or 1))
    except ValueError:
        raise ValueError(f"--arms: {name!r} holds something that is no number") from None
    objectives.checked_fraction(arm.fraction, caller=f"--arms: {name!r}")
    if not 0 < arm.multiple < 1000:
        raise ValueError(f"--arms: {name!r}: the multiple after @ must be positive and below 1000")
    if needs_fraction and arm.fraction == 0:
        raise ValueError(f"--arms: {name!r} generates nothing; use plain")
    return arm


def compared_with(name: str, names: Sequence[str]) -> list[str]:
    """The arms among `names` that an arm is compared with: plain training.

    Images at boundaries are also compared with distillation without them, and those of the solver with those of Heo
    et al.
    """
    methods = ["plain"]
    if (method := parse(name).method) in BOUNDARY:
        methods.append("distillation")
    if method == "boundary":
        methods.append("heo")
    by_method = [other for wanted in methods for other in names if parse(other).method == wanted]
    return [other for other in by_method if other != name]


def objective(
    arm: Arm,
    *,
    frozen: ApplyFn,
    own: ApplyFn,
    as_trained: ApplyFn,
    steering: Mapping[str, Steering],
    radius: float,
) -> objectives.Objective | None:
    """What the arm learns from a batch; None: plain training.

    Args:
      arm: the arm.
      frozen: `(variables, images) -> logits` of the frozen classifier.
      own: `(training state, images) -> logits` of the network in training, in inference mode.
      as_trained: the same with the statistics of its batch, for adversarial training, see `adversarial_examples`.
      steering: by method of `STEPS`, and of "boundary".
      radius: of the L2 ball of `CHANGES`.
    """
    match arm.method:
        case "plain":
            return None
        case "smoothing":
            return objectives.plain(LABEL_SMOOTHING)
        case "mixup":
            return objectives.mixup()
        case "cutmix":
            return objectives.cutmix()
        case "distillation":
            return objectives.distillation(frozen)
        case "during":
            return objectives.during(generator(frozen, steering["during"]), arm.fraction)
        case "own":
            generate = generator(own, steering["own"], own=True)
            return objectives.during(generate, arm.fraction, apart=True)
        case "heo":
            nearby = boundary_distillation.nearby_images(frozen)
            return boundary_distillation.objective(frozen, nearby, arm.fraction)
        case "boundary":
            exact = generator(frozen, steering["boundary"])
            return boundary_distillation.objective(frozen, exact, arm.fraction)
        case "pgd" | "fgsm" | "noise":
            # Batch statistics of their own, as `own` has them.
            changed = _changed(arm.method, as_trained, radius)
            return batch_shares.on_share(changed, arm.fraction, apart=True)
    return _REPLACED


def _changed(method: str, apply: ApplyFn, radius: float) -> objectives.Objective:
    """The objective of a method of `CHANGES`, for whole batches."""
    if method == "noise":
        return batch_shares.noise(radius)
    steps = _PGD_STEPS if method == "pgd" else 1
    return adversarial_examples.robust(apply, radius=radius, steps=steps)


def generator(apply: ApplyFn, steering: Steering, *, own: bool = False) -> objectives.Generate:
    """Generates float images inside the training step, by a fixed number of solver updates.

    The updates stand one after another, not in a loop, in which XLA's CPU convolutions are slow.
    """

    def generate(
        key: jax.Array, state: Any, frozen: Any, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        solver, classes, bank = steering
        variables = state if own else frozen
        drawn = jax.random.randint(key, labels.shape, 0, bank.shape[1])

        def network(image: jax.Array) -> tuple[jax.Array]:
            return (apply(variables, image[None]).astype(jnp.float32),)

        def moved(image: jax.Array, target: jax.Array) -> jax.Array:
            objective = Objective((target[None],), (og.outputs.softmax(),), (classes,))
            problem = Problem(network, objective, image, jnp.float32(-1))
            solver_state = solver.init(problem, image)
            for _ in range(solver.steps):
                solver_state, _ = solver.update(problem, solver_state)
            return solver.image(solver_state)

        new = jax.vmap(moved)(images, bank[labels, drawn])
        return new, apply(variables, new).astype(jnp.float32)

    return generate
