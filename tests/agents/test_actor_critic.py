"""The one-step actor-critic against the updates of the book, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import random_trajectory

from rljax import networks
from rljax.agents.actor_critic import ActorCriticConfig, actor_critic
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B = 5, 3
SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=B)
NETWORK = networks.actor_critic_network(SPEC, (5,), "tanh")


@pytest.mark.parametrize("discount_gradient", [False, True])
def test_updates_equal_those_of_the_book(discount_gradient):
    config = ActorCriticConfig(
        num_envs=B, num_steps=T, total_timesteps=T * B * 4, gamma=0.9, vf_coef=1.0,
        discount_gradient=discount_gradient, normalize_obs=False, normalize_reward=False,
    )  # fmt: skip
    agent = actor_critic(config, SPEC, network=NETWORK, optimizer=optax.sgd(1.0))
    state = agent.init(jax.random.key(0))
    params, update, time = state.params, jax.jit(agent.update), np.zeros(B, int)
    for seed in (3, 4):  # the time within an episode continues from one rollout to the next
        trajectory = random_trajectory(seed, T, B, SPEC)
        trajectory = trajectory._replace(extras={"raw_action": trajectory.action})
        state, _ = update(state, trajectory, jax.random.key(1))
        value, next_value = (
            NETWORK.apply(params, x)[1] for x in (trajectory.obs, trajectory.next_obs)
        )
        delta = trajectory.reward + 0.9 * next_value * (1 - trajectory.terminated) - value
        weight = np.ones((T, B))
        for t in range(T):
            weight[t] = 0.9**time
            time = np.where(trajectory.terminated[t] | trajectory.truncated[t], 0, time + 1)
        weight = jnp.asarray(weight) if discount_gradient else jnp.ones((T, B))

        def objective(params):
            policy, value = NETWORK.apply(params, trajectory.obs)
            return (weight * delta * policy.log_prob(trajectory.action) + delta * value).mean()

        params = jax.tree.map(jnp.add, params, jax.grad(objective)(params))
        for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(state.time, time)
