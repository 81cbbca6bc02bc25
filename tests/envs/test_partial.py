"""Partially observed environments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import bits

from rljax import envs
from rljax.envs.partial import observe_only


def test_partial_environments_hide_the_other_components():
    env, plain = envs.make("partial/CartPole-v1"), envs.make("CartPole-v1")
    assert env.spec.obs_shape == (2,) and env.spec.max_episode_steps == 500

    @jax.jit
    def play(key):
        states, obs = zip(*(each.reset(key) for each in (env, plain)), strict=True)
        step_key = jax.random.fold_in(key, 1)

        def one_step(states, t):
            key, action = jax.random.fold_in(step_key, t), jnp.where(t % 3 == 0, 1, 0)
            results = [
                each.step(state, action, key)
                for each, state in zip((env, plain), states, strict=True)
            ]
            return tuple(state for state, _ in results), [step for _, step in results]

        return obs, jax.lax.scan(one_step, states, jnp.arange(40))[1]

    obs, (step, full_step) = play(jax.random.key(0))
    keep = jnp.array([0, 2])
    assert bool(step.terminated.any())
    np.testing.assert_array_equal(obs[0], obs[1][keep])
    np.testing.assert_array_equal(step.obs, full_step.obs[:, keep])
    np.testing.assert_array_equal(step.next_obs, full_step.next_obs[:, keep])
    assert bits((step.reward, step.terminated)) == bits((full_step.reward, full_step.terminated))
    with pytest.raises(ValueError, match=r"`keep` is \(0, 9\), .* from 0 to 3"):
        observe_only(plain, (0, 9))
    with pytest.raises(ValueError, match="needs observations that are vectors"):
        observe_only(plain._replace(spec=plain.spec._replace(obs_shape=(3, 3, 1))), (0,))
