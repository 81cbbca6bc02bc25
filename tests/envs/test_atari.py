import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.suite_helpers import play

import rljax
from rljax import envs
from rljax.agents.ppo import PPOConfig
from rljax.envs import host, wrappers
from rljax.types import Agent, sample_one

pytest.importorskip("ale_py")
from ale_py.vector_env import AtariVectorEnv  # noqa: E402

KEY = jax.random.key(0)
B, T = 2, 40


def test_ids_and_spec():
    ids = envs.environment_ids("atari")
    assert {"atari/Breakout", "atari/MsPacman", "atari/Pong"} <= set(ids) and len(ids) > 90
    assert "gymnasium/ALE/Breakout-v5" in envs.environment_ids("gymnasium")
    spec = envs.make("atari/Breakout").spec
    assert spec.obs_shape == (84, 84, 4) and spec.obs_dtype == "uint8"
    assert (spec.num_actions, spec.max_episode_steps) == (4, 27_000)
    assert envs.make("gymnasium/ALE/Breakout-v5").spec.env_id == "gymnasium/ALE/Breakout-v5"
    assert envs.make("atari/Breakout", full_action_space=True).spec.num_actions == 18
    color = envs.make("atari/Breakout", grayscale=False, stack_num=2, img_height=90).spec
    assert color.obs_shape == (90, 84, 6)


def test_same_steps_as_ale():
    env = envs.build("atari/Breakout", B, max_episode_steps=15)
    actions = jax.random.randint(KEY, (T, B), 0, 4)
    obs, steps = play(env, actions)
    original = AtariVectorEnv(
        "breakout", B, max_num_frames_per_episode=60, autoreset_mode="SameStep",
        reward_clipping=False,
    )  # fmt: skip
    seeds = np.asarray(jax.random.randint(KEY, (B,), 0, host.NUM_SEEDS))
    np.testing.assert_array_equal(obs, np.moveaxis(original.reset(seed=seeds)[0], 1, -1))
    for t in range(T):
        next_obs, reward, terminated, truncated, info = original.step(np.asarray(actions[t]))
        np.testing.assert_array_equal(steps.obs[t], np.moveaxis(next_obs, 1, -1))
        done = (terminated | truncated).reshape(-1, 1, 1, 1)
        next_obs = np.where(done, info.get("final_obs", next_obs), next_obs)
        next_obs = np.moveaxis(next_obs, 1, -1)
        np.testing.assert_array_equal(steps.next_obs[t], next_obs)
        np.testing.assert_array_equal(steps.info["unclipped_reward"][t], reward)
        np.testing.assert_array_equal(steps.terminated[t], terminated)
        np.testing.assert_array_equal(steps.truncated[t], truncated)
    assert steps.truncated.sum(axis=0).tolist() == [2, 2]
    assert (steps.obs[14] != steps.next_obs[14]).any()


def test_the_end_of_the_game_is_a_termination():
    env = envs.build("atari/Breakout", B)
    _, steps = play(env, jnp.ones((300, B), jnp.int32))  # always fires and never moves
    assert steps.terminated.any() and not steps.truncated.any()


def test_rewards_are_clipped_and_returns_are_not():
    """In Assault every hit gives 21 points."""
    env = wrappers.record_episodes(envs.make("atari/Assault", max_episode_steps=200))
    actions = jax.random.randint(KEY, (80, B), 0, 7)
    _, steps = play(wrappers.batched(env, B), actions)
    unclipped = steps.info["unclipped_reward"]
    assert unclipped.max() == 21 and steps.reward.max() == 1.0
    np.testing.assert_array_equal(steps.reward, np.clip(unclipped, -1, 1))
    np.testing.assert_allclose(steps.info["episode_return"][-1], unclipped.sum(axis=0))
    _, again = play(envs.build("atari/Assault", B, reward_clipping=False), actions)
    np.testing.assert_array_equal(again.reward, unclipped)


def random_agent():
    """Returns the config class and the maker of an agent with random actions."""

    def make(config, spec):
        def sample_noise(key, num_steps):
            return jax.random.randint(key, (num_steps, spec.num_envs), 0, spec.num_actions)

        return Agent(
            lambda key: (), lambda state, obs, noise: (noise, ()),
            lambda state, obs, key: sample_one(sample_noise, key),
            lambda state, trajectory, key: (state, {"charts/clipped": trajectory.reward.max()}),
            sample_noise,
        )  # fmt: skip

    return PPOConfig, make


def test_metrics_and_evaluations_hold_unclipped_returns():
    run = rljax.train(
        random_agent(), "atari/Assault", env_params={"max_episode_steps": 100}, num_envs=2,
        num_steps=100, total_timesteps=200, num_minibatches=1, eval_episodes=2, num_reports=1,
        num_seeds=2, progress=False,
    )  # fmt: skip
    assert (run.metrics["charts/clipped"] <= 1).all()
    assert (run.returns >= 21).all() and (run.evaluation["returns"] >= 21).all()


def test_errors_name_the_fault():
    with pytest.raises(ValueError, match="did you mean `atari/Breakout`"):
        envs.make("atari/Breakou")
    with pytest.raises(ValueError, match="did you mean `frameskip`"):
        envs.make("atari/Breakout", frame_skip=4)


@pytest.mark.slow
def test_ppo_trains_on_images():
    run = rljax.train(
        "ppo", "atari/Breakout", num_envs=4, num_steps=32, total_timesteps=512, eval_episodes=2,
        env_params={"max_episode_steps": 60}, progress=False,
    )  # fmt: skip
    assert np.isfinite(run.returns).all()


def test_next_obs_differs_from_obs_only_where_a_game_ends():
    """ALE's `final_obs` holds earlier frames for games whose episode continues."""
    env = rljax.build("atari/Breakout", 8)

    def random_step(carry, key):
        state, previous = carry
        action_key, step_key = jax.random.split(key)
        action = jax.random.randint(action_key, (8,), 0, env.spec.num_actions)
        state, step = env.step(state, action, sample_one(env.sample_noise, step_key))
        same = (step.obs == step.next_obs).all(axis=(1, 2, 3))
        return (state, step.obs), (same, step.terminated | step.truncated)

    state, obs = jax.jit(env.reset)(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 300)
    (state, _), (same, done) = jax.jit(lambda c: jax.lax.scan(random_step, c, keys))((state, obs))
    host.close(state)
    assert done.any() and not done.all(axis=1).any()
    assert (np.asarray(same) == ~np.asarray(done)).all()
