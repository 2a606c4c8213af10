"""Measures of distributions and images."""

from outgen_jax.metrics.classification import total_variation as total_variation
