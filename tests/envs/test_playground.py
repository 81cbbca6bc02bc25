"""The adapter of MuJoCo Playground, compared with Playground."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.suite_helpers import (
    PPO,
    assert_same_steps,
    learned_value,
    lengths_of_truncated_episodes,
    random_steps,
)

import rljax

playground = pytest.importorskip("mujoco_playground")
adapter = pytest.importorskip("rljax.envs.playground")

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(autouse=True)
def _mujoco_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def test_ids(monkeypatch, tmp_path):
    monkeypatch.setattr(adapter.mjx_env, "MENAGERIE_PATH", tmp_path / "menagerie")
    ids = rljax.environment_ids("playground")
    assert "playground/CartpoleBalance" in ids and "playground/Go1Getup" not in ids
    with pytest.raises(ValueError, match=r"Go1Getup needs the models of MuJoCo Menagerie in .*: "):
        rljax.make("playground/Go1Getup")
    (tmp_path / "menagerie").mkdir()
    assert "playground/Go1Getup" in rljax.environment_ids("playground")


def test_environments_are_well_formed():
    env = rljax.make("playground/CartpoleBalance")
    rljax.envs.validate(env)
    assert env.spec.action_shape == (1,) and env.spec.max_episode_steps == 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", playground.dm_control_suite.ALL_ENVS)
def test_every_environment_is_well_formed(name):
    rljax.envs.validate(rljax.make(f"playground/{name}"))


def test_steps_are_those_of_playground():
    theirs = playground.registry.load("CartpoleSwingup", config_overrides={"impl": "jax"})

    def reset(key):
        state = theirs.reset(key)
        return state, state.obs

    def step(state, action, key):
        state = theirs.step(state, action)
        done = state.done.astype(bool)
        return state, (state.obs, state.reward, done, jnp.zeros_like(done))

    env = adapter.from_id("CartpoleSwingup")
    assert_same_steps(env, reset, step, 100, atol=1e-4)


def test_a_diverged_simulation_terminates_without_nan():
    """NaN actions stand for a simulation that diverges."""
    env = adapter.from_id("PendulumSwingup", max_episode_steps=20)
    state, obs = jax.jit(env.reset)(jax.random.key(0))
    state, step = jax.jit(env.step)(state, jnp.array([jnp.nan]), jax.random.key(1))
    assert bool(step.terminated) and not bool(step.truncated)
    assert np.isfinite(step.next_obs).all() and np.isfinite(step.reward)


def test_the_time_limit_truncates():
    env = rljax.make("playground/PendulumSwingup", max_episode_steps=7)
    _, _, steps = random_steps(env, 21)
    assert not steps.terminated.any()
    assert lengths_of_truncated_episodes(steps) == [7, 7, 7]


def test_limits_are_learned_as_truncations():
    value = learned_value("playground/PendulumSwingup")
    assert value == pytest.approx(10, abs=0.4)


def test_parameters():
    env = rljax.make("playground/CartpoleBalance", sim_dt="0.005")
    assert env.spec.env_id == "playground/CartpoleBalance"
    with pytest.raises(ValueError, match="no option `sim_d`: did you mean `sim_dt`"):
        rljax.make("playground/CartpoleBalance", sim_d=0.005)
    with pytest.raises(ValueError, match="no option `episode_length`"):
        rljax.make("playground/CartpoleBalance", episode_length=5)
    with pytest.raises(ValueError, match="`sim_dt` is 'fast', but it must be a number"):
        rljax.make("playground/CartpoleBalance", sim_dt="fast")


@pytest.fixture(scope="module")
def short_task():
    config = {"impl": "jax", "episode_length": 100}
    return playground.registry.load("CartpoleBalance", config_overrides=config)


def test_objects_of_playground(short_task):
    spec = rljax.make(short_task).spec
    assert spec.env_id == "Balance" and spec.max_episode_steps == 100
    assert rljax.make(short_task, max_episode_steps=50).spec.max_episode_steps == 50
    with pytest.raises(ValueError, match="no option `sim_dt`"):
        rljax.make(short_task, sim_dt=0.005)
    with pytest.raises(ValueError, match="BraxAutoResetWrapper of MuJoCo Playground is for brax"):
        rljax.make(playground.wrapper.BraxAutoResetWrapper(short_task))


@pytest.mark.slow
def test_ppo_trains_on_an_object_of_playground(short_task):
    run = rljax.train(
        "ppo", short_task, total_timesteps=16_384, num_envs=16, num_reports=8, eval_episodes=8,
        progress=False, **PPO,
    )  # fmt: skip
    assert run.env_id == "Balance"
    assert run.evaluation["returns"].shape == (1, 8) and run.returns[0, -1] > 20
