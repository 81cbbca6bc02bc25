"""`returns.next_values` against evaluating every next observation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import random_trajectory

from rljax.ops.returns import next_values
from rljax.types import EnvSpec

SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=5)
WEIGHTS = jnp.array([0.3, -1.2, 0.7])


def value_of(obs):
    return jnp.sin(obs @ WEIGHTS) + obs[..., 0]


def assert_equals_direct_evaluation(next_value, trajectory):
    """Where the episode did not terminate; elsewhere the result is arbitrary."""
    used = ~np.asarray(trajectory.terminated)
    expected = value_of(trajectory.next_obs)
    np.testing.assert_allclose(np.asarray(next_value)[used], np.asarray(expected)[used], rtol=1e-5)


@jax.jit
def values_of(trajectory):
    return next_values(value_of, trajectory, value_of(trajectory.obs))


@pytest.mark.parametrize("ends", [0.0, 0.15, 0.5])
def test_next_values_equal_those_of_evaluating_each_observation(ends):
    for seed in range(8):
        trajectory = random_trajectory(seed, 12, 5, SPEC, ends=ends)
        assert_equals_direct_evaluation(values_of(trajectory), trajectory)
    truncated = np.asarray(trajectory.truncated)
    assert ends == 0.0 or (truncated.sum(axis=0).max() > 1 and truncated[-1].any())


def test_a_trajectory_of_one_step():
    trajectory = random_trajectory(0, 1, 5, SPEC)
    assert_equals_direct_evaluation(values_of(trajectory), trajectory)


def test_runs_under_vmap_have_their_own_truncations():
    """A run without pending evaluations must not be changed by a run that has some."""
    trajectories = [random_trajectory(i, 12, 5, SPEC, ends=0.1 * i) for i in range(5)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *trajectories)
    counts = np.asarray(together.truncated).sum(axis=1).max(axis=-1)
    assert len(set(counts)) > 2
    next_value = jax.jit(jax.vmap(values_of))(together)
    for i, trajectory in enumerate(trajectories):
        assert_equals_direct_evaluation(next_value[i], trajectory)
        alone = values_of(trajectory)
        used = ~np.asarray(trajectory.terminated)
        np.testing.assert_allclose(
            np.asarray(next_value[i])[used], np.asarray(alone)[used], rtol=1e-6
        )


def test_the_observation_after_a_reset_is_not_evaluated():
    """Counting environments that observe the time, truncated at 3 and reset to 0."""
    obs = jnp.array([0.0, 1.0, 2.0, 0.0, 1.0])[:, None, None]
    next_obs = jnp.array([1.0, 2.0, 3.0, 1.0, 2.0])[:, None, None]
    truncated = jnp.array([0, 0, 1, 0, 0], bool)[:, None]
    trajectory = random_trajectory(0, 5, 1, EnvSpec(obs_shape=(1,), num_actions=2))
    trajectory = trajectory._replace(
        obs=obs, next_obs=next_obs, truncated=truncated, terminated=jnp.zeros_like(truncated)
    )
    next_value = next_values(lambda obs: obs[..., 0], trajectory, obs[..., 0])
    np.testing.assert_array_equal(next_value[:, 0], [1, 2, 3, 1, 2])


def test_shapes_that_would_broadcast_are_refused():
    trajectory = random_trajectory(0, 4, 5, SPEC)
    with pytest.raises(AssertionError):
        next_values(value_of, trajectory, jnp.ones((4, 1)))
