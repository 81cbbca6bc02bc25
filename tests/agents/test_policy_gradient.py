"""What the actor-critic algorithms share, against the plainest way to compute it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import random_trajectory

from rljax import networks
from rljax.agents.policy_gradient import acting, next_values
from rljax.agents.ppo import PPOState
from rljax.types import EnvSpec

SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=5)
WEIGHTS = jnp.array([0.3, -1.2, 0.7])


def value_of(obs):
    return jnp.sin(obs @ WEIGHTS) + obs[..., 0]


def agree(got, trajectory):
    """Wherever there is a value beyond: at the rest the number is of no meaning."""
    meant = ~np.asarray(trajectory.terminated)
    expected = value_of(trajectory.next_obs)
    np.testing.assert_allclose(np.asarray(got)[meant], np.asarray(expected)[meant], rtol=1e-5)


@jax.jit
def values_of(trajectory):
    return next_values(value_of, trajectory, value_of(trajectory.obs))


@pytest.mark.parametrize("ends", [0.0, 0.15, 0.5])
def test_values_of_the_next_observations_are_those_of_evaluating_each(ends):
    for seed in range(8):
        trajectory = random_trajectory(seed, 12, 5, SPEC, ends=ends)
        agree(values_of(trajectory), trajectory)
    cut = np.asarray(trajectory.truncated)
    assert ends == 0.0 or (cut.sum(axis=0).max() > 1 and cut[-1].any())


def test_one_step_is_a_trajectory_too():
    trajectory = random_trajectory(0, 1, 5, SPEC)
    agree(values_of(trajectory), trajectory)


def test_runs_under_vmap_have_truncations_of_their_own():
    """A run that has none left must not be changed by one that has."""
    trajectories = [random_trajectory(i, 12, 5, SPEC, ends=0.1 * i) for i in range(5)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *trajectories)
    counts = np.asarray(together.truncated).sum(axis=1).max(axis=-1)
    assert len(set(counts)) > 2
    got = jax.jit(jax.vmap(values_of))(together)
    for i, trajectory in enumerate(trajectories):
        agree(got[i], trajectory)
        alone = values_of(trajectory)
        meant = ~np.asarray(trajectory.terminated)
        np.testing.assert_allclose(np.asarray(got[i])[meant], np.asarray(alone)[meant], rtol=1e-6)


def test_the_reset_observation_is_not_what_is_valued():
    """K2, K4: counting worlds whose observation is the time, cut at three and begun again at 0."""
    obs = jnp.array([0.0, 1.0, 2.0, 0.0, 1.0])[:, None, None]
    next_obs = jnp.array([1.0, 2.0, 3.0, 1.0, 2.0])[:, None, None]
    cut = jnp.array([0, 0, 1, 0, 0], bool)[:, None]
    trajectory = random_trajectory(0, 5, 1, EnvSpec(obs_shape=(1,), num_actions=2))
    trajectory = trajectory._replace(
        obs=obs, next_obs=next_obs, truncated=cut, terminated=jnp.zeros_like(cut)
    )
    got = next_values(lambda obs: obs[..., 0], trajectory, obs[..., 0])
    np.testing.assert_array_equal(got[:, 0], [1, 2, 3, 1, 2])


@pytest.mark.parametrize("discrete", [True, False])
def test_acting_remembers_what_its_density_is_of(discrete):
    spec = SPEC if discrete else SPEC._replace(num_actions=0, action_shape=(2,), action_high=3.0)
    network = networks.actor_critic_network(spec, (4,), "tanh")
    params = network.init(jax.random.key(0), jnp.zeros((1, 3)))
    state, obs = PPOState(params, (), ()), jax.random.normal(jax.random.key(1), (5, 3))
    agent = acting(network, spec)
    policy, _ = network.apply(params, obs)
    actions = set()
    for i in range(20):
        action, extras = agent.act(state, obs, jax.random.key(i))
        raw = extras["raw_action"]
        assert action.shape == (5, *spec.action_shape)
        np.testing.assert_array_equal(action, networks.to_box(spec, raw))
        stored = networks.like(extras["policy"]).log_prob(raw)
        np.testing.assert_allclose(stored, policy.log_prob(raw), rtol=1e-5)
        actions.add(np.asarray(raw).tobytes())
    assert len(actions) > 10
    if not discrete:  # raw actions leave the box, those that are played do not
        assert np.abs(raw).max() > 1 and action.min() >= -1 and action.max() <= 3


@pytest.mark.parametrize("discrete", [True, False])
def test_the_greedy_action_is_the_mode_and_draws_nothing(discrete):
    spec = SPEC if discrete else SPEC._replace(num_actions=0, action_shape=(2,), action_high=3.0)
    network = networks.actor_critic_network(spec, (4,), "tanh")
    params = network.init(jax.random.key(0), jnp.zeros((1, 3)))
    params = jax.tree.map(lambda x: 3.0 * x, params)
    state, obs = PPOState(params, (), ()), jax.random.normal(jax.random.key(1), (5, 3))
    agent = acting(network, spec)
    parts = networks.parameters(network.apply(params, obs)[0])
    mode = parts[0].argmax(axis=-1) if discrete else networks.to_box(spec, parts[0])
    for seed in range(3):
        np.testing.assert_array_equal(agent.greedy(state, obs, jax.random.key(seed)), mode)
