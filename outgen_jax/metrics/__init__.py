"""Measures of images and distributions, and statistics."""

from outgen_jax.metrics.changes import l2_change as l2_change
from outgen_jax.metrics.changes import linf_change as linf_change
from outgen_jax.metrics.class_probabilities import TopClasses as TopClasses
from outgen_jax.metrics.class_probabilities import entropy as entropy
from outgen_jax.metrics.class_probabilities import least_certain as least_certain
from outgen_jax.metrics.class_probabilities import least_expected as least_expected
from outgen_jax.metrics.class_probabilities import surprise as surprise
from outgen_jax.metrics.class_probabilities import top_classes as top_classes
from outgen_jax.metrics.classification import (
    expected_calibration_error as expected_calibration_error,
)
from outgen_jax.metrics.classification import negative_log_likelihood as negative_log_likelihood
from outgen_jax.metrics.classification import ordered_top_k as ordered_top_k
from outgen_jax.metrics.classification import total_variation as total_variation
from outgen_jax.metrics.extrapolation import Extrapolation as Extrapolation
from outgen_jax.metrics.extrapolation import infinite_sample_score as infinite_sample_score
from outgen_jax.metrics.generative import PRDC as PRDC
from outgen_jax.metrics.generative import frechet_distance as frechet_distance
from outgen_jax.metrics.generative import inception_score as inception_score
from outgen_jax.metrics.generative import kernel_distance as kernel_distance
from outgen_jax.metrics.generative import prdc as prdc
from outgen_jax.metrics.multiple_testing import holm as holm
from outgen_jax.metrics.neighbours import nearest_neighbours as nearest_neighbours
from outgen_jax.metrics.neighbours import realism_score as realism_score
from outgen_jax.metrics.power import paired_power as paired_power
from outgen_jax.metrics.power import pairs_needed as pairs_needed
from outgen_jax.metrics.samples import greyness as greyness
from outgen_jax.metrics.samples import kl_to_uniform as kl_to_uniform
from outgen_jax.metrics.samples import laplacian_variance as laplacian_variance
from outgen_jax.metrics.statistics import Interval as Interval
from outgen_jax.metrics.statistics import McNemar as McNemar
from outgen_jax.metrics.statistics import PairedTTest as PairedTTest
from outgen_jax.metrics.statistics import WelchTTest as WelchTTest
from outgen_jax.metrics.statistics import bootstrap_interval as bootstrap_interval
from outgen_jax.metrics.statistics import jackknife_interval as jackknife_interval
from outgen_jax.metrics.statistics import mcnemar as mcnemar
from outgen_jax.metrics.statistics import mean_interval as mean_interval
from outgen_jax.metrics.statistics import paired_t_test as paired_t_test
from outgen_jax.metrics.statistics import welch_t_test as welch_t_test
