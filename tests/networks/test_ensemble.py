"""The networks of a learned model, and their likelihood against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rljax.networks.ensemble import (
    MAX_LOG_VARIANCE,
    MIN_LOG_VARIANCE,
    GaussianModel,
    Prediction,
    negative_log_likelihood,
    scale_of,
    standardize,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")


def test_negative_log_likelihood_is_that_of_scipy():
    rng = np.random.default_rng(0)
    mean, log_variance, target = rng.normal(size=(3, 5, 4))
    prediction = Prediction(jnp.asarray(mean), jnp.asarray(log_variance), jnp.zeros(5))
    expected = -2 * stats.norm(mean, np.exp(0.5 * log_variance)).logpdf(target)
    expected -= np.log(2 * np.pi)
    np.testing.assert_allclose(
        negative_log_likelihood(prediction, jnp.asarray(target)), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("learned", [True, False])
def test_the_variance_is_bounded_for_all_inputs(learned):
    model = GaussianModel(3, (8,), learned_bounds=learned)
    inputs = 1e4 * jax.random.normal(jax.random.key(0), (100, 2))
    params = model.init(jax.random.key(1), inputs)
    prediction = model.apply(params, inputs)
    assert [x.shape for x in prediction] == [(100, 3), (100, 3), (100,)]
    low, high = prediction.log_variance.min(), prediction.log_variance.max()
    assert MIN_LOG_VARIANCE - 0.01 < low < MIN_LOG_VARIANCE + 0.01
    assert MAX_LOG_VARIANCE - 0.01 < high < MAX_LOG_VARIANCE + 0.01
    assert ("max_log_variance" in params["params"]) == learned


def test_scales_are_those_of_the_filled_rows():
    x = np.random.default_rng(1).normal([3.0, 2.1], [2.0, 0.0], size=(10, 2))
    is_filled = np.arange(10) < 7
    scale = scale_of(jnp.asarray(x), jnp.asarray(is_filled))
    np.testing.assert_allclose(scale.mean, x[:7].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scale.std, [x[:7, 0].std(), 1.0], rtol=1e-5)
    standardized = np.asarray(standardize(jnp.asarray(x), scale))[:7]
    np.testing.assert_allclose(standardized.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(standardized.std(axis=0), [1.0, 0.0], atol=1e-5)
