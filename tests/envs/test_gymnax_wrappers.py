"""gymnax wrappers: training sees what their own `reset` and `step` return, without auto-resets."""

import gymnax
import jax
import numpy as np
import pytest
from gymnax.wrappers import purerl
from gymnax.wrappers.compat import LegacyStepAPIWrapper
from gymnax.wrappers.dm_env import GymnaxToDmEnvWrapper

import rljax
from rljax import envs
from rljax.envs import gymnax as adapter
from rljax.envs.wrapped import innermost
from rljax.rendering import watch

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def _gymnax_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


class ScaledReward(purerl.GymnaxWrapper):
    def __init__(self, env, scale):
        super().__init__(env)
        self.scale = scale

    def step(self, key, state, action, params=None):
        obs, state, reward, terminated, truncated, info = self._env.step(key, state, action, params)
        return obs, state, reward * self.scale, terminated, truncated, info


class FiveValues(purerl.GymnaxWrapper):
    def step(self, key, state, action, params=None):
        return self._env.step(key, state, action, params)[:5]


def cart_pole():
    return gymnax.make("CartPole-v1")[0]


def steps_of(env, actions):
    """Steps the environment from one fixed reset; returns all `Step`s."""
    state, _ = env.reset(KEY)
    steps = []
    for time, action in enumerate(actions):
        noise = env.sample_noise(jax.random.fold_in(KEY, time), 1)[0]
        state, step = env.step(state, action, noise)
        steps.append(step)
    return jax.tree.map(lambda *x: np.stack(x), *steps)


def test_a_sticky_action_of_probability_one_replaces_every_action_by_zero():
    actions = [1, 1, 0, 1, 1]
    sticky = steps_of(adapter.from_object(purerl.StickyActionWrapper(cart_pole(), 1.0)), actions)
    zero = steps_of(adapter.from_object(cart_pole()), [0] * 5)
    given = steps_of(adapter.from_object(cart_pole()), actions)
    np.testing.assert_allclose(sticky.obs, zero.obs, rtol=1e-5, atol=1e-7)
    assert np.abs(given.obs - zero.obs).max() > 0.1


def test_a_wrapper_of_the_reward_changes_the_reward():
    steps = steps_of(adapter.from_object(ScaledReward(cart_pole(), 0.25)), [1, 0, 1])
    np.testing.assert_array_equal(steps.reward, [0.25] * 3)


def test_training_and_evaluation_see_the_wrapped_reward():
    run = rljax.train(
        "ppo", ScaledReward(cart_pole(), 0.0), total_timesteps=512, num_envs=4, num_steps=32,
        eval_episodes=4, progress=False,
    )  # fmt: skip
    assert np.nanmax(np.abs(run.returns)) == 0.0
    np.testing.assert_array_equal(run.evaluation["returns"], 0.0)


@pytest.mark.parametrize("depth", [1, 2])
def test_observations_of_wrappers(depth):
    env, _ = gymnax.make("Breakout-MinAtar")
    wrapped = purerl.FlattenObservationWrapper(
        env if depth == 1 else purerl.StickyActionWrapper(env, 0.0)
    )
    made, bare = adapter.from_object(wrapped), adapter.from_object(env)
    assert made.spec.obs_shape == (400,) and type(made.spec.obs_shape[0]) is int
    steps, expected = steps_of(made, [0, 1, 2]), steps_of(bare, [0, 1, 2])
    np.testing.assert_array_equal(steps.next_obs, expected.next_obs.reshape(3, 400))
    assert set(steps.info) == set(expected.info)


def test_no_wrapper_hides_the_end_of_an_episode():
    """The last observation is that of the episode, and a time limit is a truncation."""
    wrapped = adapter.from_object(purerl.LogWrapper(cart_pole()), max_episode_steps=5)
    bare = adapter.from_object(cart_pole(), max_episode_steps=5)
    steps, expected = steps_of(wrapped, [0, 1, 0, 1, 0]), steps_of(bare, [0, 1, 0, 1, 0])
    np.testing.assert_allclose(steps.next_obs, expected.next_obs, rtol=1e-6)
    assert steps.truncated.tolist() == [False] * 4 + [True] and not steps.terminated.any()


def test_the_wrapper_itself_is_unchanged():
    env = purerl.StickyActionWrapper(cart_pole(), 0.5)
    inner = env._env
    adapter.from_object(env)
    assert env._env is inner


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        (FiveValues, "`step` of FiveValues around CartPole-v1 returns 5 values, but it must"),
        (LegacyStepAPIWrapper, "`step` of LegacyStepAPIWrapper around CartPole-v1 returns 5 value"),
        (GymnaxToDmEnvWrapper, r"takes \(key, timestep, action, params\), but that of gymnax take"),
    ],
)
def test_wrappers_of_other_interfaces_are_refused_by_name(wrapper, message):
    with pytest.raises(ValueError, match=message):
        envs.make(wrapper(cart_pole()))


def test_a_parameter_object_is_a_mapping_of_what_it_changes():
    env, params = gymnax.make("CartPole-v1")
    changed = params.replace(gravity=1.0, max_steps_in_episode=30)
    expected = ("CartPole-v1", {"gravity": 1.0, "max_episode_steps": 30})
    assert envs.with_params("CartPole-v1", changed) == expected
    assert envs.with_params(("CartPole-v1", changed)) == expected
    assert envs.with_params("CartPole-v1", params) == ("CartPole-v1", {})
    assert envs.make(("CartPole-v1", changed)).spec.max_episode_steps == 30
    assert envs.make(("CartPole-v1", changed), max_episode_steps=7).spec.max_episode_steps == 7
    assert envs.with_params(env, changed) == ((env, changed), {})


def test_train_takes_the_pair_of_gymnax_make(tmp_path):
    env, params = gymnax.make("CartPole-v1")
    params = params.replace(max_steps_in_episode=30)
    small = {"total_timesteps": 256, "num_envs": 2, "num_steps": 32, "progress": False}
    by_object = rljax.train("ppo", env, env_params=params, **small)
    by_pair = rljax.train("ppo", ("CartPole-v1", params), run_dir=tmp_path / "run", **small)
    by_name = rljax.train("ppo", "CartPole-v1", env_params={"max_episode_steps": 30}, **small)
    for run in (by_object, by_pair):
        np.testing.assert_array_equal(run.returns, by_name.returns)
    assert by_pair.config["env_params"] == {"max_episode_steps": 30}
    again = rljax.evaluate(tmp_path / "run", 2)
    assert (np.asarray(again["lengths"]) <= 30).all()


@pytest.mark.parametrize(
    ("env", "env_params", "message"),
    [
        ("Pendulum-v1", "CartPole-v1", "`env_params` is of type `EnvParams`, but the parameters"),
        ("rljax/Maze", "CartPole-v1", "`env_params` is of type `EnvParams`, but it must be a map"),
        ("CartPole-v1", 3, "`env_params` is of type `int`, but the parameters of CartPole-v1 are"),
    ],
)
def test_wrong_parameter_objects_are_refused(env, env_params, message):
    given = gymnax.make(env_params)[1] if isinstance(env_params, str) else env_params
    with pytest.raises(ValueError, match=message):
        rljax.train("ppo", env, env_params=given)


def test_a_wrapped_environment_is_drawn_as_the_bare_one(tmp_path):
    env = purerl.StickyActionWrapper(cart_pole(), 0.25)
    small = {"total_timesteps": 256, "num_envs": 2, "num_steps": 32, "progress": False}
    rljax.train("ppo", env, run_dir=tmp_path / "run", eval_episodes=0, **small)
    assert watch.watch(tmp_path / "run", env=env, max_steps=3).stat().st_size > 1_000
    state = adapter.from_object(env).reset(KEY)[0]
    assert hasattr(innermost(state), "theta")


def test_an_environment_may_hold_another_one():
    """A class with its own `step_env` is an environment, whatever it holds."""

    class Doubled:
        name = "Doubled"

        def __init__(self):
            self._env = cart_pole()

        def __getattr__(self, name):
            return getattr(self._env, name)

        def step_env(self, key, state, action, params):
            obs, state, reward, terminated, info = self._env.step_env(key, state, action, params)
            return obs, state, 2 * reward, terminated, info

    steps = steps_of(adapter.from_object(Doubled()), [1, 0])
    np.testing.assert_array_equal(steps.reward, [2.0, 2.0])
