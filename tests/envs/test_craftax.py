"""The adapter of Craftax, compared with Craftax."""

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

craftax = pytest.importorskip("craftax.craftax_env")
adapter = pytest.importorskip("rljax.envs.craftax")

pytestmark = pytest.mark.usefixtures("quick_compiles")

CLASSIC = "Craftax-Classic-Symbolic-v1"


@pytest.fixture(autouse=True)
def _craftax_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def test_ids():
    assert rljax.environment_ids("craftax") == [f"craftax/{name}" for name in adapter.NAMES]


def test_environments_are_well_formed():
    env = rljax.make(f"craftax/{CLASSIC}")
    rljax.envs.validate(env)
    assert env.spec.obs_shape == (1345,) and env.spec.obs_dtype == "float32"
    assert env.spec.num_actions == 17 and env.spec.max_episode_steps == 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", adapter.NAMES)
def test_every_environment_is_well_formed(name):
    rljax.envs.validate(rljax.make(f"craftax/{name}"))


def test_steps_are_those_of_craftax():
    theirs = craftax.make_craftax_env_from_name(CLASSIC, auto_reset=False)
    params = theirs.default_params

    def reset(key):
        obs, state = theirs.reset_env(key, params)
        return state, obs

    def step(state, action, key):
        obs, state, reward, done, _ = theirs.step_env(key, state, action, params)
        return state, (obs, reward, done, jnp.zeros_like(done))

    env = adapter.from_id(CLASSIC)
    for steps in assert_same_steps(env, reset, step, 600, atol=1e-6):
        assert steps.terminated[-1]  # the player died
        achievements = [x for name, x in steps.info.items() if name.startswith("Achievements/")]
        assert len(achievements) == 22 and max(x[-1] for x in achievements) == 100


def test_the_time_limit_truncates():
    env = rljax.make(f"craftax/{CLASSIC}", max_episode_steps=7)
    _, _, steps = random_steps(env, 21)
    assert not steps.terminated.any()
    assert lengths_of_truncated_episodes(steps) == [7, 7, 7]


def test_limits_are_learned_as_truncations():
    value = learned_value(f"craftax/{CLASSIC}")
    assert value == pytest.approx(10, abs=0.4)


def test_parameters():
    env = adapter.from_id(CLASSIC, max_zombies="5", spawn_cow_chance="0.5")
    state, _ = jax.eval_shape(env.reset, jax.random.key(0))
    assert state.env.zombies.mask.shape == (5,)
    with pytest.raises(ValueError, match="no option `max_zombie`: did you mean `max_zombies`"):
        rljax.make(f"craftax/{CLASSIC}", max_zombie=5)
    with pytest.raises(ValueError, match="no option `max_timesteps`: did you mean `max_episode"):
        rljax.make(f"craftax/{CLASSIC}", max_timesteps=5)


def test_ppo_trains_on_an_object_of_craftax():
    env = craftax.make_craftax_env_from_name(CLASSIC, auto_reset=True)
    run = rljax.train(
        "ppo", (env, env.default_params.replace(max_timesteps=200)), total_timesteps=8192,
        num_envs=16, num_reports=2, eval_episodes=0, progress=False, **PPO,
    )  # fmt: skip
    assert run.env_id == CLASSIC
    assert np.isfinite(run.returns).all() and run.returns[0, -1] > 0
