"""The errors of `validate`, on environments with one fault each."""

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
    """The state of `valid_env`."""

    x: jax.Array
    time: jax.Array


def valid_env(spec=SPEC, reset=None, step=None, **changes):
    """An environment of four-step episodes that resets itself; `changes` replace its outputs."""

    def default_reset(key):
        x = jax.random.uniform(key, (2,))
        return State(x, jnp.int32(0)), x

    def default_step(state, action, key):
        time = state.time + 1
        done = time >= 4
        next_obs = state.x + 1
        initial, _ = default_reset(key)
        x = jnp.where(done, initial.x, next_obs)
        output = Step(x, jnp.float32(1), done, jnp.bool(False), next_obs)
        replaced = {name: change(output, state) for name, change in changes.items()}
        return State(x, jnp.where(done, 0, time)), output._replace(**replaced)

    return Env(spec, reset or default_reset, step or default_step)


def error_message(env):
    with pytest.raises(ValueError) as error:
        envs.validate(env)
    text = str(error.value)
    assert text.startswith("Mine: ")
    assert text.endswith(".")
    assert "\n" not in text
    return text


def ring(size, first=0, **spec):
    """Visits `size` states in a cycle; episodes start and end in state 0."""

    def step(state, action, key):
        state = (state + 1) % size
        return state, Step(state, jnp.float32(0), state == 0, jnp.bool(False), state)

    spec = SPEC._replace(**{"obs_shape": (), "num_states": size} | spec)
    return Env(spec, lambda key: (jnp.int32(0), jnp.asarray(first)), step)


def two_arrays():
    """Observations are a tuple of two arrays; episodes never end."""
    obs = jnp.ones(2), jnp.int32(0)
    output = Step(obs, jnp.float32(0), jnp.bool(False), jnp.bool(False), obs)
    return valid_env(
        SPEC._replace(obs_shape=((2,), ())),
        reset=lambda key: (0, obs), step=lambda state, action, key: (state, output),
    )  # fmt: skip


@pytest.mark.parametrize(
    "env",
    [
        valid_env(),
        valid_env(CONTINUOUS._replace(action_low=np.array([-1.0, 0.0]), action_high=2.0)),
        valid_env(SPEC._replace(num_actions=1)),
        ring(3),  # `obs` equals `next_obs` at the end, and is an initial observation
        two_arrays(),
    ],
    ids=["vector", "continuous", "one action", "states", "several arrays"],
)
def test_valid_environments_pass(env):
    envs.validate(env)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_actions": 0}, "`num_actions` is 0 and `action_shape` is (); set `num_actions` for"),
        ({"num_actions": -3}, "`num_actions` is -3"),
        (
            {"action_shape": (1,)},
            "`num_actions` is 2 and `action_shape` is (1,); set only one",
        ),
        ({"num_states": 5}, "`num_states` is 5 and `obs_shape` is (2,)"),
        ({"num_envs": 4}, "`num_envs` is 4; pass a single environment, `batched`"),
        (
            {"obs_shape": (3,)},
            "`obs` of `reset` has shape (2,), but `obs_shape` is (3,); make",
        ),
    ],
)
def test_contradictory_specs(changes, words):
    assert words in error_message(valid_env(SPEC._replace(**changes)))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (
            1.0,
            1.0,
            "`action_low` is 1.0 and `action_high` is 1.0; set each lower bound",
        ),
        ([-1.0, 3.0], 2.0, "`action_low` is [-1.0, 3.0] and `action_high` is 2.0"),
        (-np.inf, 1.0, "`action_low` is -inf; set finite bounds and clip the actions to them"),
        (-1.0, [1.0, np.nan], "`action_high` is [1.0, nan]"),
        ([0.0, 0.0, 0.0], 1.0, "set a number, or an array of `action_shape` = (2,)"),
        (-1.0, "far", "`action_high` is 'far'; set a number"),
    ],
)
def test_wrong_action_bounds(low, high, words):
    assert words in error_message(valid_env(CONTINUOUS._replace(action_low=low, action_high=high)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"obs": lambda output, _: output.obs[:1]},
            "`obs` is float32[2] after `reset` and float32[1] after `step`; return the same",
        ),
        (
            {"next_obs": lambda output, _: output.next_obs.astype(jnp.float16)},
            "`next_obs` is float32[2] after `reset` and float16[2] after `step`",
        ),
        (
            {"next_obs": lambda output, _: {"x": output.next_obs}},
            "`next_obs` is * after `reset` and {'x': *} after `step`; return the same",
        ),
        (
            {"reward": lambda output, _: jnp.int32(1)},
            "`reward` is int32[]; return a scalar, `x.astype(jnp.float32)`",
        ),
        ({"reward": lambda output, _: jnp.ones(1)}, "`reward` is float32[1]; return a scalar"),
        ({"reward": lambda output, _: None}, "`reward` is a NoneType; return one float32 scalar"),
        (
            {"terminated": lambda output, _: jnp.float32(0)},
            "`terminated` is float32[]; return a scalar, `x.astype(jnp.bool)`",
        ),
        ({"truncated": lambda output, _: jnp.zeros(2, bool)}, "`truncated` is bool[2]"),
    ],
)
def test_wrong_shapes_and_dtypes_of_a_step(changes, words):
    assert words in error_message(valid_env(**changes))


def test_float64_rewards_are_refused():
    with jax.enable_x64(True):
        text = error_message(valid_env(reward=lambda output, _: jnp.float64(1)))
    assert "`reward` is float64[]; return a scalar, `x.astype(jnp.float32)`" in text


def _env_with_next_state(change):
    def step(state, action, key):
        return change(state), valid_env().step(state, action, key)[1]

    return valid_env(step=step)


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
def test_states_that_change_structure_shape_or_dtype(change, words):
    assert words in error_message(_env_with_next_state(change))


def _raising(*args):
    raise RuntimeError("no such\nthing")


def _branching(state, action, key):
    return (state, 0) if action > 0 else (state, 1)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (
            valid_env(reset=_raising),
            "`reset` raises RuntimeError under `jit`, for a key: no such thing",
        ),
        (
            valid_env(step=_raising),
            "`step` raises RuntimeError under `jit`, for an action int32[] and",
        ),
        (
            valid_env(CONTINUOUS, step=_raising),
            "for an action float32[2] and noise key<fry>[]: no such",
        ),
        (
            valid_env(step=_branching),
            "`step` needs the value of an array while JAX compiles it (",
        ),
        (valid_env(reset=lambda key: jnp.ones(2)), "`reset` returns a "),
        (valid_env(reset=lambda key: (jnp.ones(2), ())), "`obs` of `reset` contains no array"),
        (
            valid_env(step=lambda state, action, key: (state, 1, 2)),
            "`step` returns a tuple of 3; return a pair, `state, rljax.Step(...)`",
        ),
        (
            valid_env()._replace(sample_noise=_raising),
            "`sample_noise` raises RuntimeError under `jit`, for a key and",
        ),
        (
            valid_env()._replace(sample_noise=lambda key, T: jax.random.uniform(key)),
            "`sample_noise(key, 2)` returns a float32[]; return one row for each of the 2 steps",
        ),
        (
            valid_env()._replace(sample_noise=lambda key, T: jax.random.uniform(key, (T,))),
            "`step` raises TypeError under `jit`, for an action int32[] and noise float32[]: ",
        ),
    ],
)
def test_functions_that_raise_or_return_the_wrong_type(env, words):
    assert words in error_message(env)


def _after(steps, value):
    """Returns a change that sets an observation to `value` after so many steps."""
    return lambda output, state: jnp.where(state.time + 1 >= steps, value, output.next_obs)


def _reset_to_infinity(key):
    x = jnp.array([1.0, jnp.inf])
    return State(x, jnp.int32(0)), x


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (
            valid_env(next_obs=_after(3, jnp.nan)),
            "`next_obs` contains nan after 3 random steps; look",
        ),
        (valid_env(reset=_reset_to_infinity), "`obs` contains inf after `reset`"),
        (
            valid_env(reward=lambda output, state: jnp.log(-state.time.astype(jnp.float32))),
            "`reward` contains -inf after 1 random steps",
        ),
        (
            ring(3, num_states=2),
            "`obs` is 2, but `num_states` is 2; return indices from 0 to 1",
        ),
        (
            ring(3, first=0.0),
            "`num_states` is 3, but `obs` is float32; return the index of the state",
        ),
    ],
)
def test_values_that_are_not_finite_or_out_of_range(env, words):
    assert words in error_message(env)


def test_environments_that_do_not_reset_themselves():
    text = error_message(valid_env(obs=lambda output, state: output.next_obs))
    assert "`obs` equals `next_obs` where an episode ends (after 4 random steps)" in text
    assert "`rljax.envs.auto_reset` does so" in text


def test_environments_whose_next_obs_is_the_reset_observation():
    env = valid_env(next_obs=lambda output, state: output.obs)
    assert "`obs` equals `next_obs`" in error_message(env)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_actions": 2.5}, "`num_actions` is 2.5; give an integer of at least 0"),
        ({"num_actions": (2, True)}, "`num_actions` is (2, True); give an integer"),
        ({"num_states": -1, "obs_shape": ()}, "`num_states` is -1; give an integer of at least 0"),
        ({"obs_shape": (0,)}, "`obs_shape` is (0,); give a shape of integers of at least 1"),
        ({"obs_shape": (2.0,)}, "`obs_shape` is (2.0,); give a shape of integers"),
        ({"num_actions": 0, "action_shape": (0,)}, "`action_shape` is (0,); give integers of at"),
        (
            {"obs_shape": (100_000, 130_000)},
            "256 observations of `obs_shape` (100000, 130000) need",
        ),
    ],
)
def test_sizes_that_are_not_integers_or_do_not_fit(changes, words):
    assert words in error_message(valid_env(SPEC._replace(**changes)))


def test_a_missing_spec():
    with pytest.raises(ValueError, match=r"^the `spec` of the environment is None, but it must b"):
        envs.validate(valid_env(spec=None))


@pytest.mark.parametrize(
    "function",
    [
        lambda state, action, key: np.clip(np.asarray(action), 0, 1),
        lambda state, action, key: state if action > 0 else None,
        lambda state, action, key: [1, 2, 3][action],
        lambda state, action, key: int(action),
    ],
    ids=["numpy", "if", "index", "int"],
)
def test_code_that_needs_values_names_its_line_and_the_cure(function):
    text = error_message(valid_env(step=function))
    line = function.__code__.co_firstlineno
    assert text.startswith("Mine: `step` needs the value of an array while JAX compiles it (")
    assert f"test_checks.py, line {line}): write it with `jax.numpy` in place of NumPy" in text
    assert "jax.lax.cond" in text and "gymnasium environment" in text


def test_registered_environments_pass():
    with jax.numpy_rank_promotion("allow"):
        envs.validate(envs.make("FrozenLake-misc", max_episode_steps=5))
