"""The adapter of navix, compared with navix."""

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

navix = pytest.importorskip("navix")
adapter = pytest.importorskip("rljax.envs.navix")

pytestmark = pytest.mark.usefixtures("quick_compiles")

FORWARD, RIGHT = 2, 1
TO_GOAL = [FORWARD, FORWARD, RIGHT, FORWARD, FORWARD]  # in Empty-5x5


@pytest.fixture(autouse=True)
def _navix_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def test_ids():
    ids = rljax.environment_ids("navix")
    assert "navix/Navix-Empty-5x5-v0" in ids and len(ids) == len(navix.registry())
    with pytest.raises(ValueError, match="did you mean `navix/Navix-Empty-5x5-v0`"):
        rljax.make("navix/Navix-Empty-5x5-v1")


@pytest.mark.parametrize("name", ["DoorKey-Random-5x5", "Dynamic-Obstacles-5x5", "GoToDoor-5x5"])
def test_environments_are_well_formed(name):
    env = rljax.make(f"navix/Navix-{name}-v0")
    rljax.envs.validate(env)
    assert env.spec.num_actions == 7 and env.spec.max_episode_steps == 100


def navix_functions(env):
    def reset(key):
        timestep = env.reset(key)
        return timestep, timestep.observation

    def step(timestep, action, key):
        timestep = env._step(timestep, action)
        flags = timestep.is_termination(), timestep.is_truncation()
        return timestep, (timestep.observation, timestep.reward, *flags)

    return reset, step


@pytest.mark.parametrize("observation", ["symbolic_first_person", "symbolic"])
@pytest.mark.parametrize("name", ["DoorKey-Random-5x5", "Dynamic-Obstacles-6x6-Random"])
def test_steps_are_those_of_navix(name, observation):
    function = getattr(navix.observations, observation)
    functions = navix_functions(navix.make(f"Navix-{name}-v0", observation_fn=function))
    env = adapter.from_id(f"Navix-{name}-v0", observation=observation)
    assert_same_steps(env, *functions, 120, decode=lambda obs: codes_of(obs, adapter.TILE_CODES))


def test_the_mission_is_observed():
    env = rljax.make("navix/Navix-GoToDoor-5x5-v0")
    state, obs = jax.jit(env.reset)(jax.random.key(0))
    color = int(state.env.state.mission.colour)
    assert obs["mission"].tolist() == [i == color for i in range(6)]


@pytest.mark.parametrize("limit", [5, 9])
def test_reaching_the_goal_terminates(limit):
    """Also in the step in which the time is up."""
    env = rljax.make("navix/Navix-Empty-5x5-v0", max_episode_steps=limit)
    _, _, steps = rollout(env, jax.random.key(0), jnp.array(TO_GOAL))
    assert steps.terminated.tolist() == [False] * 4 + [True]
    assert not steps.truncated.any()
    assert steps.reward.tolist() == [0, 0, 0, 0, 1]
    assert not np.array_equal(steps.obs[-1], steps.next_obs[-1])


@pytest.mark.parametrize("env_params", [{}, {"max_episode_steps": 7}])
def test_the_time_limit_truncates(env_params):
    env = rljax.make("navix/Navix-Empty-16x16-v0", **env_params)
    limit = env.spec.max_episode_steps
    _, _, steps = random_steps(env, 2 * limit)
    assert not steps.terminated.any()
    assert lengths_of_truncated_episodes(steps) == [limit, limit]


def test_limits_are_learned_as_truncations():
    assert learned_value("navix/Navix-Empty-16x16-v0") == pytest.approx(10, abs=0.4)


def test_parameters():
    env = rljax.make("navix/Navix-Empty-5x5-v0", random_start="true", observation="symbolic")
    assert env.spec.obs_shape == (5, 5, 21)
    starts = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 20))[1]
    assert len(np.unique(starts.reshape(20, -1), axis=0)) > 3
    env = rljax.make("navix/Navix-Empty-5x5-v0", observation="rgb_first_person")
    assert env.spec.obs_shape == (56, 56, 3) and env.spec.obs_dtype == "uint8"
    with pytest.raises(ValueError, match="no option `random_strt`: did you mean `random_start`"):
        rljax.make("navix/Navix-Empty-5x5-v0", random_strt=True)
    with pytest.raises(ValueError, match="`observation` is 'pixels', but it must be one of symb"):
        rljax.make("navix/Navix-Empty-5x5-v0", observation="pixels")


def test_ppo_trains_on_an_object_of_navix():
    env = navix.make("Navix-Empty-5x5-v0", observation_fn=navix.observations.symbolic)
    run = rljax.train(
        "ppo", env, total_timesteps=8192, num_envs=16, num_reports=8, eval_episodes=16,
        progress=False, env_params={"max_episode_steps": 30}, **PPO | {"num_steps": 32},
    )  # fmt: skip
    assert run.env_id == "Room"
    assert run.evaluation["returns"].mean() > 0.9
    with pytest.raises(ValueError, match="no parameter object: leave out `env_params`"):
        rljax.make((env, object()))
