"""What `check_env` says of environments that are not well formed, one fault each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import envs
from rljax.types import Env, EnvSpec, Step

SPEC = EnvSpec(obs_shape=(2,), num_actions=2, env_id="Mine")
CONTINUOUS = SPEC._replace(num_actions=0, action_shape=(2,))


class State(NamedTuple):
    """The state of `sound`."""

    x: jax.Array
    time: jax.Array


def sound(spec=SPEC, reset=None, step=None, **changes):
    """An environment of four-step episodes that resets itself; `changes` are to its `Step`."""

    def begin(key):
        x = jax.random.uniform(key, (2,))
        return State(x, jnp.int32(0)), x

    def go(state, action, key):
        time = state.time + 1
        done = time >= 4
        reached = state.x + 1
        fresh, _ = begin(key)
        x = jnp.where(done, fresh.x, reached)
        told = Step(x, jnp.float32(1), done, jnp.bool(False), reached)
        told = told._replace(**{name: change(told, state) for name, change in changes.items()})
        return State(x, jnp.where(done, 0, time)), told

    return Env(spec, reset or begin, step or go)


def message(env):
    with pytest.raises(ValueError) as error:
        envs.check_env(env)
    text = str(error.value)
    assert text.startswith("Mine: ")
    assert text.endswith(".")
    assert "\n" not in text
    return text


def ring(size, first=0, **spec):
    """Walks round `size` states, and ends where it begins."""

    def step(state, action, key):
        state = (state + 1) % size
        return state, Step(state, jnp.float32(0), state == 0, jnp.bool(False), state)

    spec = SPEC._replace(**{"obs_shape": (), "num_states": size} | spec)
    return Env(spec, lambda key: (jnp.int32(0), jnp.asarray(first)), step)


def pairs():
    """Observes two arrays, of which only the agent that it is for knows, and never ends."""
    obs = jnp.ones(2), jnp.int32(0)
    told = Step(obs, jnp.float32(0), jnp.bool(False), jnp.bool(False), obs)
    return sound(reset=lambda key: (0, obs), step=lambda state, action, key: (state, told))


@pytest.mark.parametrize(
    "env",
    [
        sound(),
        sound(CONTINUOUS._replace(action_low=np.array([-1.0, 0.0]), action_high=2.0)),
        sound(SPEC._replace(num_actions=1)),
        ring(3),  # `obs` is `next_obs` where it ends, and right
        pairs(),
    ],
    ids=["vector", "continuous", "one action", "states", "several arrays"],
)
def test_sound_environments_pass(env):
    envs.check_env(env)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_actions": 0}, "`num_actions` is 0 and `action_shape` is (); set `num_actions` for"),
        ({"num_actions": -3}, "`num_actions` is -3"),
        ({"action_shape": (1,)}, "`num_actions` is 2 and `action_shape` is (1,); set one of them"),
        ({"num_states": 5}, "`num_states` is 5 and `obs_shape` is (2,)"),
        ({"num_envs": 4}, "`num_envs` is 4; give one"),
        ({"obs_shape": (3,)}, "`obs` of `reset` has shape (2,), the spec says `obs_shape` = (3,)"),
    ],
)
def test_a_spec_that_contradicts_itself_or_the_observation(changes, words):
    assert words in message(sound(SPEC._replace(**changes)))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.0, 1.0, "`action_low` is 1.0 and `action_high` is 1.0; low must be below high"),
        ([-1.0, 3.0], 2.0, "`action_low` is [-1.0, 3.0] and `action_high` is 2.0"),
        (-np.inf, 1.0, "`action_low` is -inf; clip the actions to a finite box"),
        (-1.0, [1.0, np.nan], "`action_high` is [1.0, nan]"),
        ([0.0, 0.0, 0.0], 1.0, "give a number, or an array that fits `action_shape` = (2,)"),
        (-1.0, "far", "`action_high` is 'far'; give a number"),
    ],
)
def test_bounds_of_actions(low, high, words):
    assert words in message(sound(CONTINUOUS._replace(action_low=low, action_high=high)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"obs": lambda told, _: told.obs[:1]},
            "`obs` is float32[2] after `reset` and float32[1] after `step`; give both the same",
        ),
        (
            {"next_obs": lambda told, _: told.next_obs.astype(jnp.float16)},
            "`next_obs` is float32[2] after `reset` and float16[2] after `step`",
        ),
        (
            {"next_obs": lambda told, _: {"x": told.next_obs}},
            "`next_obs` is * after `reset` and {'x': *} after `step`; the two must be built alike",
        ),
        (
            {"reward": lambda told, _: jnp.int32(1)},
            "`reward` is int32[]; return a scalar, `x.astype(jnp.float32)`",
        ),
        ({"reward": lambda told, _: jnp.ones(1)}, "`reward` is float32[1]; return a scalar"),
        ({"reward": lambda told, _: None}, "`reward` is a NoneType; return one float32 scalar"),
        (
            {"terminated": lambda told, _: jnp.float32(0)},
            "`terminated` is float32[]; return a scalar, `x.astype(jnp.bool)`",
        ),
        ({"truncated": lambda told, _: jnp.zeros(2, bool)}, "`truncated` is bool[2]"),
    ],
)
def test_what_a_step_tells(changes, words):
    assert words in message(sound(**changes))


def test_a_reward_of_64_bits_is_named():
    with jax.enable_x64(True):
        text = message(sound(reward=lambda told, _: jnp.float64(1)))
    assert "`reward` is float64[]; return a scalar, `x.astype(jnp.float32)`" in text


def _stepping_to(change):
    def step(state, action, key):
        return change(state), sound().step(state, action, key)[1]

    return sound(step=step)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda state: state._replace(time=jnp.float32(0)),
            "`state.time` is int32[] after `reset` and float32[] after `step`",
        ),
        (lambda state: state._replace(x=state.x[:1]), "`state.x` is float32[2] after `reset`"),
        (lambda state: tuple(state), "`state` is CustomNode(namedtuple[State], [*, *]) after"),
    ],
)
def test_a_state_that_changes_its_form(change, words):
    assert words in message(_stepping_to(change))


def _raising(*args):
    raise RuntimeError("no such\nthing")


def _branching(state, action, key):
    return (state, 0) if action > 0 else (state, 1)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (
            sound(reset=_raising),
            "`reset` raises RuntimeError under `jit`, for a key: no such thing",
        ),
        (sound(step=_raising), "`step` raises RuntimeError under `jit`, for an action int32[]: no"),
        (sound(CONTINUOUS, step=_raising), "for an action float32[2]: no such thing"),
        (sound(step=_branching), "`step` raises TracerBoolConversionError under `jit`, for an act"),
        (sound(reset=lambda key: jnp.ones(2)), "`reset` returns a "),
        (sound(reset=lambda key: (jnp.ones(2), ())), "`obs` of `reset` holds no array"),
        (
            sound(step=lambda state, action, key: (state, 1, 2)),
            "`step` returns a tuple of 3; return a pair, `state, rljax.Step(...)`",
        ),
        (
            sound()._replace(sample_noise=_raising),
            "`draw` raises RuntimeError under `jit`, for a key and",
        ),
        (
            sound()._replace(sample_noise=lambda key, T: jax.random.uniform(key)),
            "`draw(key, 2)` returns a float32[]; the first axis must be the steps, 2",
        ),
        (
            sound()._replace(sample_noise=lambda key, T: jax.random.uniform(key, (T,))),
            "`step` raises TypeError under `jit`, for a row of what `draw` made: ",
        ),
    ],
)
def test_functions_that_raise_or_return_something_else(env, words):
    assert words in message(env)


def _after(steps, value):
    """A change to an observation from a step on."""
    return lambda told, state: jnp.where(state.time + 1 >= steps, value, told.next_obs)


def _spoiled(key):
    x = jnp.array([1.0, jnp.inf])
    return State(x, jnp.int32(0)), x


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (sound(next_obs=_after(3, jnp.nan)), "`next_obs` holds nan after 3 random steps; find the"),
        (sound(reset=_spoiled), "`obs` holds inf after `reset`"),
        (
            sound(reward=lambda told, state: jnp.log(-state.time.astype(jnp.float32))),
            "`reward` holds -inf after 1 random steps",
        ),
        (
            ring(3, num_states=2),
            "`obs` is 2, but `num_states` is 2; observe indices from 0 to num_states - 1",
        ),
        (
            ring(3, first=0.0),
            "`num_states` is 3, but `obs` is float32; observe the index of the state",
        ),
    ],
)
def test_values(env, words):
    assert words in message(env)


def test_an_environment_that_does_not_reset_itself():
    stopping = sound(obs=lambda told, state: told.next_obs)
    text = message(stopping)
    assert "where its episodes end (after 4 random steps) `obs` is `next_obs`" in text
    assert "`rljax.envs.auto_reset` makes it so" in text


def test_an_environment_that_shows_the_reset_as_the_end():
    assert "`obs` is `next_obs`" in message(sound(next_obs=lambda told, state: told.obs))


def test_registered_environments_pass():
    with jax.numpy_rank_promotion("allow"):
        envs.check_env(envs.make("FrozenLake-misc", max_episode_steps=5))
