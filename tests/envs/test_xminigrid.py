"""The adapter of XLand-MiniGrid, compared with xminigrid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.suite_helpers import (
    PPO,
    assert_same_steps,
    codes_of,
    learned_value,
    lengths_of_truncated_episodes,
    random_steps,
)
from probes import rollout

import rljax

xminigrid = pytest.importorskip("xminigrid")
wrappers = pytest.importorskip("xminigrid.wrappers")
adapter = pytest.importorskip("rljax.envs.xminigrid")

pytestmark = pytest.mark.usefixtures("quick_compiles")

FORWARD, RIGHT = 0, 1
TO_GOAL = [FORWARD, FORWARD, RIGHT, FORWARD, FORWARD]  # in Empty-5x5


@pytest.fixture(autouse=True)
def _xminigrid_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def a_ruleset():
    """The task to stand next to the one object of the grid, a red ball."""
    from xminigrid.core.constants import TILES_REGISTRY, Colors, Tiles
    from xminigrid.core.goals import AgentNearGoal
    from xminigrid.core.rules import EmptyRule
    from xminigrid.types import RuleSet

    ball = TILES_REGISTRY[Tiles.BALL, Colors.RED]
    rules = EmptyRule().encode()[None]
    return RuleSet(goal=AgentNearGoal(ball).encode(), rules=rules, init_tiles=ball[None])


def test_ids():
    ids = rljax.environment_ids("xminigrid")
    assert "xminigrid/MiniGrid-Empty-5x5" in ids
    assert not any("XLand" in env_id for env_id in ids)


@pytest.mark.parametrize("name", ["DoorKey-5x5", "MemoryS8"])
def test_environments_are_well_formed(name):
    env = rljax.make(f"xminigrid/MiniGrid-{name}")
    rljax.envs.validate(env)
    params = xminigrid.make(f"MiniGrid-{name}")[1]
    assert env.spec.max_episode_steps == params.max_steps
    assert env.spec.obs_shape == (params.view_size, params.view_size, 25)


def xminigrid_functions(env, params):
    def reset(key):
        timestep = env.reset(params, key)
        return timestep, timestep.observation

    def step(timestep, action, key):
        timestep = env.step(params, timestep, action)
        terminated = timestep.last() & (timestep.discount == 0.0)
        truncated = timestep.last() & (timestep.discount == 1.0)
        return timestep, (timestep.observation, timestep.reward, terminated, truncated)

    return reset, step


@pytest.mark.parametrize("name", ["MiniGrid-DoorKey-5x5", "MiniGrid-MemoryS8"])
def test_steps_are_those_of_xminigrid(name):
    functions, env = xminigrid_functions(*xminigrid.make(name)), adapter.from_id(name)
    assert_same_steps(env, *functions, 300, decode=lambda obs: codes_of(obs, adapter.TILE_CODES))


@pytest.mark.parametrize("limit", [5, 9])
def test_reaching_the_goal_terminates(limit):
    """Also in the step in which the time is up. The reward depends on the limit."""
    env = rljax.make("xminigrid/MiniGrid-Empty-5x5", max_episode_steps=limit)
    _, _, steps = rollout(env, jax.random.key(0), jnp.array(TO_GOAL))
    assert steps.terminated.tolist() == [False] * 4 + [True]
    assert not steps.truncated.any()
    assert steps.reward.tolist() == pytest.approx([0, 0, 0, 0, 1 - 0.9 * 5 / limit])
    assert not np.array_equal(steps.obs[-1], steps.next_obs[-1])


@pytest.mark.parametrize("env_params", [{}, {"max_episode_steps": 7}])
def test_the_time_limit_truncates(env_params):
    env = rljax.make("xminigrid/MiniGrid-Playground", **env_params)  # no task, so no end
    limit = env.spec.max_episode_steps
    _, _, steps = random_steps(env, 2 * limit)
    assert not steps.terminated.any()
    assert lengths_of_truncated_episodes(steps) == [limit, limit]


def test_limits_are_learned_as_truncations():
    assert learned_value("xminigrid/MiniGrid-Empty-16x16") == pytest.approx(10, abs=0.4)


def test_parameters():
    env = rljax.make("xminigrid/MiniGrid-Empty-5x5", view_size="5", height=8, width=8)
    assert env.spec.obs_shape == (5, 5, 25)
    with pytest.raises(ValueError, match="no option `view_siz`: did you mean `view_size`"):
        rljax.make("xminigrid/MiniGrid-Empty-5x5", view_siz=5)
    with pytest.raises(ValueError, match="no option `max_steps`: did you mean `max_episode_steps"):
        rljax.make("xminigrid/MiniGrid-Empty-5x5", max_steps=5)


def test_environments_of_xland_need_a_ruleset():
    with pytest.raises(ValueError, match="R1-9x9 has no task without the parameter `ruleset`"):
        rljax.make("xminigrid/XLand-MiniGrid-R1-9x9")
    env, params = xminigrid.make("XLand-MiniGrid-R1-9x9")
    with pytest.raises(ValueError, match="XLandMiniGrid has no task"):
        rljax.make((env, params))
    made = rljax.make("xminigrid/XLand-MiniGrid-R1-9x9", ruleset=a_ruleset())
    _, _, steps = random_steps(made, 500)
    assert steps.terminated.any() and (steps.reward[steps.terminated] > 0).all()


def test_ppo_trains_on_a_wrapped_object_of_xminigrid():
    env, params = xminigrid.make("MiniGrid-Empty-5x5")
    env = wrappers.DirectionObservationWrapper(env)
    assert rljax.make((env, params)).spec.obs_shape == {"direction": (4,), "img": (7, 7, 25)}
    run = rljax.train(
        "ppo", env, env_params=params, total_timesteps=8192, num_envs=16, num_reports=8,
        eval_episodes=16, progress=False, **PPO | {"num_steps": 32},
    )  # fmt: skip
    assert run.env_id == "Empty"
    assert run.evaluation["returns"].mean() > 0.8
    with pytest.raises(ValueError, match="GymAutoResetWrapper of xminigrid resets the environment"):
        rljax.make((wrappers.GymAutoResetWrapper(env), params))
