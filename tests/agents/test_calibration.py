"""The calibration of a model that is exact, too narrow, or too wide, in a random walk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rljax.agents.calibration import calibration
from rljax.agents.ensemble import Ensemble, Members
from rljax.types import Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")

L, N = 6, 400


def walk():
    """Random walks `[L, N]` of two numbers, whose steps are the action plus unit noise."""
    rng = np.random.default_rng(0)
    action = rng.normal(size=(L, N, 2)).astype(np.float32)
    start = np.zeros((1, N, 2), np.float32)
    steps = np.cumsum(action + rng.normal(size=(L, N, 2)).astype(np.float32), axis=0)
    obs = np.concatenate([start, steps[:-1]])
    no = jnp.zeros((L, N), bool)
    return Transition(*map(jnp.asarray, (obs, action, np.zeros((L, N)), no, no, steps)))


def model(std):
    """The true mean, with a standard deviation of `std`."""

    def step(members, obs, action, normal):
        del members
        return obs + action + std * normal[..., :2], normal[..., 2], obs[..., 0] > 0

    return Ensemble(None, None, None, None, step, 3)  # type: ignore[arg-type]


MEMBERS = Members({"w": jnp.zeros((2, 1))}, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("std", [1.0, 0.5, 2.0])
def test_coverage_is_that_of_the_normal_distribution(std):
    levels = (0.5, 0.9)
    result = jax.jit(lambda key: calibration(
        model(std), MEMBERS, walk(), key, levels=levels, num_samples=200
    ))(jax.random.key(0))  # fmt: skip
    expected = [2 * stats.norm.cdf(std * stats.norm.ppf(0.5 + p / 2)) - 1 for p in levels]
    assert result.coverage.shape == (L, 2)
    np.testing.assert_allclose(result.coverage, np.tile(expected, (L, 1)), atol=0.05)


def test_the_error_is_that_of_the_unpredictable_part():
    sequences = walk()
    result = calibration(model(0.0), MEMBERS, sequences, jax.random.key(0))
    spread = np.asarray(sequences.next_obs).std(axis=(0, 1))
    expected = np.sqrt(np.arange(1, L + 1)) * np.sqrt(np.mean(1 / spread**2))
    np.testing.assert_allclose(result.error, expected, rtol=0.1)


def test_each_network_must_imagine_as_many_samples():
    with pytest.raises(ValueError, match="`num_samples` is 3, but it must be a multiple of the 2"):
        calibration(model(1.0), MEMBERS, walk(), jax.random.key(0), num_samples=3)
