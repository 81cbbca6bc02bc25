"""`rljax.make`: ids, suites, parameters, and environments of the user."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import rollout

from rljax import envs
from rljax.envs import gymnax as adapter
from rljax.types import Env, EnvSpec, Step

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def _gymnax_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def test_ids():
    ids = envs.environment_ids()
    assert set(adapter.registered()) - set(ids) <= {"MNISTBandit-bsuite"}  # its data are missing
    assert envs.make("gymnax/CartPole-v1").spec == envs.make("CartPole-v1").spec


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("cartpole", "no environment `cartpole`: did you mean `CartPole-v1`?"),
        ("CartPole-v2", "no environment `CartPole-v2`: did you mean `CartPole-v1`?"),
        ("gymnax/Breakout", "did you mean `Breakout-MinAtar`? `rljax list gymnax` shows"),
        ("gymnacks/CartPole-v1", "suite `gymnacks` of `gymnacks/CartPole-v1`: did you mean `Cart"),
        ("gymnacks/ant", "suite `gymnacks` of `gymnacks/ant`: did you mean `gymnax`?"),
        ("CartPole/v1", "no environment suite `CartPole` of `CartPole/v1`: the suites are"),
    ],
)
def test_unknown_ids_name_the_nearest(env_id, message):
    with pytest.raises(ValueError) as error:
        envs.make(env_id)
    assert message in str(error.value)


@pytest.fixture
def missing_suite(monkeypatch):
    """Registers a suite whose package is not installed."""
    suite = envs.Suite("no_such_package.envs", "no_such_package", "an example", "missing")
    monkeypatch.setitem(envs.SUITES, "missing", suite)


def test_suites_that_are_not_installed_are_left_out_of_listings(missing_suite):
    assert "CartPole-v1" in envs.environment_ids()
    assert not any(env_id.startswith("missing") for env_id in envs.environment_ids())
    with pytest.raises(ValueError, match="there is no environment `CartPole-v2`"):
        envs.make("CartPole-v2")


def test_the_error_for_a_suite_that_is_not_installed_names_the_extra(missing_suite):
    with pytest.raises(ValueError) as error:
        envs.make("missing/Ant")
    assert str(error.value) == (
        "`missing/Ant` needs the package `no_such_package`, which cannot be imported. Install it "
        "with `pip install 'rljax-research[missing]'`."
    )


def test_parameters_reach_the_environment_and_its_constructor():
    still = envs.make("CartPole-v1", gravity=0.0, force_mag=0.0)
    _, _, steps = rollout(still, KEY, jnp.zeros(5, int))
    np.testing.assert_allclose(np.diff(steps.next_obs[:, 3]), 0, atol=1e-6)
    dry = envs.make("FrozenLake-misc", is_slippery=False, max_episode_steps="50")
    assert dry.spec.max_episode_steps == 50
    assert dry.spec.num_states == 16
    _, _, steps = rollout(dry, KEY, jnp.array([2, 2, 1, 1, 1, 2]))
    assert steps.next_obs.tolist() == [1, 2, 6, 10, 14, 15]
    assert steps.reward.tolist() == [0, 0, 0, 0, 0, 1]
    assert envs.make("FrozenLake-misc", map_name="8x8").spec.num_states == 64


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"gravty": 1.0}, "CartPole-v1 has no option `gravty`: did you mean `gravity`?"),
        ({"max_episode_steps": 0}, "`max_episode_steps` is 0, but it must be at least 1."),
        ({"max_episode_steps": 2.5}, "`max_episode_steps` is 2.5, but it must be an integer."),
        ({"gravity": "low"}, "`gravity` is 'low', but it must be a number."),
    ],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(ValueError) as error:
        envs.make("CartPole-v1", **params)
    assert message in str(error.value)


def test_an_env_is_returned_unchanged():
    def step(state, action, noise):
        obs = state[None].astype(jnp.float32) + 1
        return state + 1, Step(obs, jnp.float32(1), jnp.bool(False), jnp.bool(False), obs)

    mine = Env(
        EnvSpec((1,), num_actions=2, env_id="Mine"), lambda key: (jnp.int32(0), jnp.zeros(1)), step
    )
    assert envs.make(mine) is mine
    limited = envs.make(mine, max_episode_steps=3)
    _, _, steps = rollout(limited, KEY, jnp.zeros(4, int))
    assert steps.truncated.tolist() == [False, False, True, False]
    assert steps.next_obs[:, 0].tolist() == [1, 2, 3, 1]
    with pytest.raises(
        ValueError, match="Mine is an `Env`, so its parameter `speed` cannot be set"
    ):
        envs.make(mine, speed=1)


def corridor(base, **methods):
    """Returns a gymnax environment of 3 steps to the right, with `methods` added."""

    def reset_env(self, key, params):
        return jnp.zeros(1), {"x": 0, "time": 0}

    def step_env(self, key, state, action, params):
        state = {"x": state["x"] + action, "time": state["time"] + 1}
        obs = jnp.float32(state["x"])[None]
        return obs, state, 1, state["x"] >= 3, {}

    spaces = sys.modules["gymnax"].environments.spaces
    body = {
        "reset_env": reset_env,
        "step_env": step_env,
        "default_params": None,
        "action_space": lambda self, params: spaces.Discrete(2),
        "observation_space": lambda self, params: spaces.Box(0, 9, (1,)),
    }
    return type("Corridor", (base,), body | methods)()


def test_objects_with_and_without_parameters():
    cart_pole, params = adapter.load_gymnax().make("CartPole-v1")
    assert envs.make(cart_pole).spec.max_episode_steps == 500
    pair = cart_pole, params.replace(max_steps_in_episode=9)
    assert envs.make(pair).spec.max_episode_steps == 9


def test_a_time_limit_is_added_to_an_object_without_one():
    adapter.load_gymnax()
    mine = corridor(object, is_truncated=lambda self, state, params: jnp.bool(False))
    env = envs.make(mine, max_episode_steps=4)
    _, _, steps = rollout(env, KEY, jnp.array([0, 1, 0, 0, 1, 1, 1]))
    assert steps.truncated.tolist() == [False, False, False, True, False, False, False]
    assert steps.terminated.tolist() == [False] * 6 + [True]
    assert steps.reward.dtype == jnp.float32


def test_environments_for_gymnax_before_1_are_refused():
    base = adapter.load_gymnax().environments.environment.Environment
    with pytest.raises(ValueError, match=r"Corridor is written for gymnax before 1.0"):
        envs.make(corridor(object))
    old = corridor(base, is_terminal=lambda self, state, params: state["time"] >= 9)
    with pytest.raises(ValueError, match=r"Corridor is written for gymnax before 1.0"):
        envs.make(old)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (object, "`env` is the class object, but it must be an environment. Pass an instance"),
        (3, "`env` is 3 of type int, but it must be an id such as"),
        (None, "`env` is None of type NoneType, but it must be an id such as"),
    ],
)
def test_objects_of_other_types_are_refused(wrong, message):
    with pytest.raises(ValueError) as error:
        envs.make(wrong)
    assert message in str(error.value)


def test_objects_without_a_method_of_gymnax_are_refused():
    never = {"is_truncated": lambda self, state, params: jnp.bool(False)}
    env = corridor(object, **never)
    del type(env).step_env
    with pytest.raises(ValueError, match="Corridor has no `step_env`, which a gymnax env"):
        envs.make(env)


def test_unsupported_spaces_are_refused():
    spaces = adapter.load_gymnax().environments.spaces
    never = {"is_truncated": lambda self, state, params: jnp.bool(False)}
    dict_obs = {"observation_space": lambda self, params: spaces.Dict({"a": spaces.Discrete(2)})}
    with pytest.raises(ValueError, match="Corridor has observations in a Dict space, which no"):
        envs.make(corridor(object, **never, **dict_obs))
    tuple_action = {"action_space": lambda self, params: spaces.Tuple([spaces.Discrete(2)])}
    with pytest.raises(ValueError, match="Corridor has actions in a Tuple space, but rljax needs"):
        envs.make(corridor(object, **never, **tuple_action))
    unbounded = {"action_space": lambda self, params: spaces.Box(-jnp.inf, jnp.inf, (2,))}
    with pytest.raises(ValueError, match=r"`action_low` is .* set finite bounds and clip"):
        envs.make(corridor(object, **never, **unbounded))


def test_a_step_env_with_six_outputs_is_refused():
    adapter.load_gymnax()
    env = corridor(
        object,
        is_truncated=lambda self, state, params: jnp.bool(False),
        step_env=lambda self, key, state, action, params: (state, state, 1, False, False, {}),
    )
    with pytest.raises(ValueError, match="`step_env` of Corridor returns 6 values"):
        envs.make(env)
