"""Values learned from rewards of 1 tell whether a time limit is a truncation."""

import jax
import jax.numpy as jnp
import pytest
from envs.suite_helpers import TIME_LIMIT, constant_reward, learned_value
from probes import rollout

from rljax.envs import time_limit
from rljax.types import Env, EnvSpec, Step


def clock(terminates: bool) -> Env:
    """An environment that observes the time, and whose limit of 20 steps may be a termination."""
    spec = EnvSpec({"time": (1,), "legal": (2,)}, num_actions=2, action_mask="legal")

    def observe(time):
        return {"time": time.astype(jnp.float32)[None], "legal": jnp.array([True, False])}

    def reset(key):
        return jnp.int32(0), observe(jnp.int32(0))

    def step(time, action, key):
        ended = (time + 1 >= TIME_LIMIT) & terminates
        obs = observe(time + 1)
        return time + 1, Step(obs, jnp.float32(action), ended, jnp.bool_(False), obs)

    return Env(spec, reset, step)


@pytest.mark.parametrize(("terminates", "value"), [(False, 10.0), (True, 8.78)])
def test_the_learned_value_shows_whether_a_limit_is_a_truncation(terminates, value):
    from rljax.envs import auto_reset

    env = auto_reset(time_limit(clock(terminates), TIME_LIMIT))
    assert learned_value(env, num_updates=300) == pytest.approx(value, abs=0.2)


def test_constant_reward():
    _, _, steps = rollout(constant_reward(clock(False)), jax.random.key(0), jnp.zeros(3, int))
    assert steps.reward.tolist() == [1, 1, 1]
