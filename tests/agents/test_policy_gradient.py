"""How policy-gradient agents act, and the checks of their pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rljax import networks
from rljax.agents import AGENTS
from rljax.agents.policy_gradient import stochastic_policy
from rljax.agents.ppo import PPOState
from rljax.networks import recurrent
from rljax.types import EnvSpec, sample_one

SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=5)
BOX = SPEC._replace(num_actions=0, action_shape=(2,), action_high=3.0)
MAKERS = ("a2c", "a3c", "actor_critic", "dppo", "impala", "ppo", "reinforce", "trpo")


def make(spec, scale=1.0):
    network = networks.actor_critic_network(spec, (4,), "tanh")
    params = network.init(jax.random.key(0), jnp.zeros((1, 3)))
    params = jax.tree.map(lambda x: scale * x, params)
    state, obs = PPOState(params, (), ()), jax.random.normal(jax.random.key(1), (5, 3))
    acting = stochastic_policy(network, spec, recurrent.memoryless(spec))
    return acting, state, obs, network.apply(params, obs)[0]


@pytest.mark.parametrize("spec", [SPEC, BOX])
def test_the_stored_policy_and_action_give_the_log_probability(spec):
    acting, state, obs, policy = make(spec)
    actions = set()
    for i in range(20):
        noise = sample_one(acting.sample_noise, jax.random.key(i))
        action, extras = acting.act(state, obs, noise)
        raw = extras["raw_action"]
        assert action.shape == (5, *spec.action_shape)
        np.testing.assert_array_equal(action, networks.to_box(spec, raw))
        stored = networks.like(extras["policy"]).log_prob(raw)
        np.testing.assert_allclose(stored, policy.log_prob(raw), rtol=1e-5)
        actions.add(np.asarray(raw).tobytes())
    assert len(actions) > 10
    if spec is BOX:  # raw actions leave the box, executed actions do not
        assert np.abs(raw).max() > 1 and action.min() >= -1 and action.max() <= 3


@pytest.mark.parametrize("spec", [SPEC, BOX])
def test_the_greedy_action_is_the_mode_of_the_policy(spec):
    acting, state, obs, policy = make(spec, scale=3.0)
    arrays = networks.parameters(policy)
    mode = networks.to_box(spec, arrays[0]) if spec is BOX else arrays[0].argmax(axis=-1)
    for seed in range(3):
        np.testing.assert_array_equal(acting.greedy(state, obs, jax.random.key(seed)), mode)


@pytest.mark.parametrize("name", MAKERS)
def test_every_maker_checks_its_network_and_optimizer(name):
    row = AGENTS[name]
    config = row.config()
    with pytest.raises(ValueError, match=r"`network` returns an array .* dqn"):
        row.make(config, SPEC, network=networks.q_network(SPEC, (4,)))
    for wrong in (optax.adam, 1e-3):
        with pytest.raises(ValueError, match=r"`optimizer` is .*, such as `optax.adam"):
            row.make(config, SPEC, optimizer=wrong)
    assert row.make(config, SPEC, optimizer=optax.adam(1e-3))
