"""Targets: build, parse and validate them (paper A)."""

from outgen_jax.targets.distributions import completed as completed
from outgen_jax.targets.distributions import dirichlet as dirichlet
from outgen_jax.targets.distributions import validate as validate
from outgen_jax.targets.parsing import from_csv as from_csv
from outgen_jax.targets.parsing import parse as parse
