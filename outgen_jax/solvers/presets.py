"""Solvers by name: paper A's settings, Adam, and the exact ones."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import optax

from outgen_jax.solvers import descent, gauss_newton
from outgen_jax.solvers.descent import LEARNING_RATE, LOWPASS_RADIUS, MOMENTUM, gradient_descent
from outgen_jax.solvers.exact import Exact, exact
from outgen_jax.solvers.solver import Solver

# Built once: solvers are equal only if they hold the same optimiser.
_SGD = optax.sgd(LEARNING_RATE)
_MOMENTUM = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
# As printed, Eq. A7–A8 apply the learning rate twice: once in v, once in the step.
_MOMENTUM_PRINTED = optax.sgd(LEARNING_RATE**2, momentum=MOMENTUM)
_ADAM = optax.adam(0.005)


class _Preset(NamedTuple):
    build: Callable[[int], Solver]  # from a number of steps
    steps: int = descent.STEPS  # where none is asked for


_EXACT = "exact"


_PRESETS: Mapping[str, _Preset] = MappingProxyType(
    {
        "sgd": _Preset(lambda steps: gradient_descent(_SGD, steps=steps)),
        "momentum": _Preset(lambda steps: gradient_descent(_MOMENTUM, steps=steps)),
        "momentum_printed": _Preset(lambda steps: gradient_descent(_MOMENTUM_PRINTED, steps=steps)),
        "momentum_lowpass": _Preset(
            lambda steps: gradient_descent(_MOMENTUM, steps=steps, lowpass_radius=LOWPASS_RADIUS)
        ),
        # Not the paper's: nearer to the target on large images, where plain gradients are small.
        "adam": _Preset(lambda steps: gradient_descent(_ADAM, weight_decay=0.0, steps=steps)),
        "gauss_newton": _Preset(
            lambda steps: gauss_newton.gauss_newton(steps=steps), gauss_newton.STEPS
        ),
    }
)
PRESETS = (_EXACT, *_PRESETS)


def preset(name: str, *, steps: int | None = None) -> Solver | Exact:
    """Paper A's settings by name, and three more.

    - "sgd": Eq. A6 (Fig. A3).
    - "momentum": Eq. A7–A8 in the usual form, with the learning rate applied once (Fig. A4).
    - "momentum_printed": Eq. A7–A8 as printed, with the learning rate applied twice.
    - "momentum_lowpass": momentum behind a low-pass filter of radius 10 (Fig. A5).
    - "adam": Adam with rate 0.005 and no weight decay; not of the paper.
    - "gauss_newton", "exact": `og.gauss_newton()` and `og.exact()`.

    Args:
      name: one of `PRESETS`.
      steps: the largest number of steps; None: 100, or 40 for "gauss_newton".

    Raises:
      ValueError: an unknown name; `steps` for "exact", which has none.

    >>> import outgen_jax as og
    >>> og.preset("sgd") == og.preset("sgd", steps=100)
    True
    """
    if name == _EXACT:
        if steps is not None:
            raise ValueError(
                f"preset: 'exact' ends at its tolerance and takes no steps, got {steps}; leave them out"
            )
        return exact()
    if name not in _PRESETS:
        raise ValueError(f"preset: no solver {name!r}; use one of {', '.join(PRESETS)}")
    return _PRESETS[name].build(_PRESETS[name].steps if steps is None else steps)
