"""The rules by which tasks terminate, against what the environments say."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.wrappers.purerl import FlattenObservationWrapper

import rljax
from rljax.envs import terminations

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.mark.parametrize(
    ("env_id", "params"),
    [
        ("CartPole-v1", {}),
        ("CartPole-v1", {"x_threshold": 0.1, "theta_threshold_radians": 0.5}),
        ("MountainCar-v0", {"goal_position": -0.4}),
        ("MountainCarContinuous-v0", {"goal_position": -0.4, "goal_velocity": 0.005}),
        ("Acrobot-v1", {}),
        ("Pendulum-v1", {}),
    ],
)
def test_the_rule_is_that_of_the_environment(env_id, params):
    env = rljax.build(env_id, 16, max_episode_steps=1000, **params)
    rule = env.spec.termination

    def step(carry, key):
        state, obs = carry
        act_key, env_key = jax.random.split(key)
        if env.spec.num_actions:
            action = jax.random.randint(act_key, (16,), 0, env.spec.num_actions)
        else:
            action = jax.random.uniform(act_key, (16, 1), minval=-1.0)
        state, step = env.step(state, action, env.sample_noise(env_key, 1)[0])
        return (state, step.obs), (step.terminated, rule(obs, action, step.next_obs))

    keys = jax.random.split(jax.random.key(0), 1500)
    _, (terminated, predicted) = jax.jit(lambda start: jax.lax.scan(step, start, keys))(
        env.reset(jax.random.key(1))
    )
    assert terminated.any() == (env_id != "Pendulum-v1")
    # a state at the threshold may be on either side of it after rounding
    assert (np.asarray(terminated) != np.asarray(predicted)).sum() <= 2


def test_the_rule_keeps_leading_axes():
    obs = jnp.zeros((2, 3, 4)).at[1, 2, 0].set(5.0)
    rule = rljax.envs.make("CartPole-v1").spec.termination
    expected = np.zeros((2, 3), bool)
    expected[1, 2] = True
    np.testing.assert_array_equal(rule(obs, jnp.zeros((2, 3)), obs), expected)


def test_changed_observations_have_no_rule():
    env, params = gymnax.make("CartPole-v1")
    wrapped = FlattenObservationWrapper(env)
    assert terminations.rule_of(env, params) is not None
    assert terminations.rule_of(wrapped, params) is None
    assert rljax.envs.make("partial/CartPole-v1").spec.termination is None
    assert rljax.envs.make("Catch-bsuite").spec.termination is None

    class Heavy(type(env)):
        """A task of the user, whose rule may be another one."""

    assert terminations.rule_of(Heavy(), params) is None
