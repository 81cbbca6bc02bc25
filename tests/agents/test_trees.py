"""Observations that are trees of arrays: networks, normalization, replay, memory, checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from masked_environments import camera_and_speed

import rljax
from rljax.agents import AGENTS, normalize
from rljax.agents.exploration import random_network_distillation
from rljax.config import from_mapping
from rljax.types import EnvSpec

REPLAY = {"num_envs": 8, "num_steps": 2, "train_frequency": 8, "learning_starts": 500}
ON_POLICY = {"num_steps": 32, "normalize_obs": True, "normalize_reward": False}
PPO = ON_POLICY | {"learning_rate": 2e-3, "num_minibatches": 4}
GRU = {"memory": "gru", "memory_size": 16, "torso": "mlp"}
DQN = REPLAY | {
    "buffer_size": 50_000, "target_update_interval": 500, "anneal_lr": False, "eps_end": 0.05,
    "exploration_repeat": 1, "normalize_obs": True,
}  # fmt: skip
LEARNING = {
    "ppo": PPO,
    "ppo with a memory": PPO | GRU | {"normalize_obs": False},
    "reinforce": ON_POLICY,
    "dqn": DQN | {"prioritized": True, "n_step": 2, "gamma": 0.5},
    "pqn": {"num_envs": 16, "num_steps": 32, "gamma": 0.5},
    "discrete_sac": REPLAY,
}  # fmt: skip


@pytest.mark.parametrize("name", LEARNING)
def test_agents_learn_from_trees(name):
    result = rljax.train(
        name.split()[0], camera_and_speed(), num_seeds=4, total_timesteps=20_000, num_reports=1,
        eval_episodes=8, progress=False, hidden_sizes=(32,), **LEARNING[name],
    )  # fmt: skip
    returns = result.evaluation["returns"].mean(axis=-1)  # of 10; 5 at random
    assert (returns > 9.0).sum() >= 3, returns


def test_random_network_distillation_takes_trees():
    env = rljax.build(camera_and_speed(), 4)
    row = AGENTS["a2c"]
    config = from_mapping(row.config, {"num_envs": 4, "num_steps": 8})
    agent = random_network_distillation(row.make(config, env.spec), env.spec)
    learner = rljax.make_learner(agent, env, 8)
    state, metrics = jax.jit(learner.step)(jax.jit(learner.init)(jax.random.key(0)))
    assert np.isfinite(float(metrics["charts/intrinsic_reward"]))
    assert float(state.agent.obs["more"]["vector"].mean[0]) == 5.0


def test_each_array_is_normalized_by_its_own_moments_and_a_mask_is_not():
    spec = EnvSpec({"a": (2,), "b": (), "legal": (3,)}, 3, action_mask="legal")
    moments = normalize.init_obs_moments(spec)
    obs = {
        "a": jnp.array([[0.0, 10.0], [2.0, 30.0]]), "b": jnp.array([5, 7], jnp.uint8),
        "legal": jnp.array([[True, False, True], [False, True, True]]),
    }  # fmt: skip
    moments = normalize.update_obs_moments(spec, moments, obs)
    assert moments["legal"] is None
    out = normalize.standardize_obs(obs, moments)
    np.testing.assert_allclose(out["a"], [[-1, -1], [1, 1]], atol=1e-5)
    np.testing.assert_allclose(out["b"], [-1, 1], atol=1e-5)
    assert (out["legal"] == obs["legal"]).all()


def test_a_run_with_trees_resumes_with_identical_results(tmp_path):
    options = {"total_timesteps": 400, "num_reports": 2, "eval_episodes": 2, "progress": False}
    options |= {"buffer_size": 300, "learning_starts": 60, "batch_size": 32, "num_envs": 2}
    options |= {"hidden_sizes": (8,), "n_step": 1}
    env = camera_and_speed()
    whole = rljax.train("dqn", env, normalize_obs=True, **options)
    options |= {"total_timesteps": 400, "run_dir": tmp_path / "run"}
    rljax.train("dqn", env, normalize_obs=True, **options)
    plan, states = rljax.load_states(tmp_path / "run", env)
    same = jax.tree.map(np.array_equal, states.agent.learned, whole.state.agent.learned)
    assert jax.tree.all(same) and plan.agent == "dqn"
    example = states.agent.replay.layout
    assert {field.dtype.name for field in example.fields} >= {"uint8", "float32"}


def test_a_dtype_that_replay_cannot_store_is_named():
    with pytest.raises(ValueError, match=r"observations of `obs\['camera'\]` are float32, but"):
        rljax.train(
            "dqn", camera_and_speed(jnp.float32), total_timesteps=100, progress=False,
            learning_starts=10, batch_size=10, n_step=1,
        )  # fmt: skip
