"""The adapter of brax, compared with brax."""

import warnings

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
from probes import rollout

import rljax

brax = pytest.importorskip("brax.envs")
adapter = pytest.importorskip("rljax.envs.brax")

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(autouse=True)
def _brax_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def brax_environment(name, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # brax recommends MuJoCo Playground
        return brax.get_environment(name, **arguments)


def test_ids():
    ids = rljax.environment_ids("brax")
    assert {"brax/ant", "brax/inverted_pendulum"} <= set(ids) and "brax/fast" not in ids


def test_an_environment_that_jax_cannot_run_is_refused():
    if not adapter.unavailable("swimmer"):
        pytest.skip("this version of JAX has `jnp.clip(a_min=...)`")
    assert "brax/swimmer" not in rljax.environment_ids("brax")
    with pytest.raises(ValueError, match="brax/swimmer of brax .* which this version of JAX no"):
        rljax.make("brax/swimmer")


def test_environments_are_well_formed():
    env = rljax.make("brax/inverted_pendulum")
    rljax.envs.validate(env)
    assert env.spec.action_shape == (1,) and env.spec.max_episode_steps == 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", [x for x in adapter.registered() if not adapter.unavailable(x)])
def test_every_environment_is_well_formed(name):
    rljax.envs.validate(rljax.make(f"brax/{name}"))


def test_steps_are_those_of_brax():
    theirs = brax_environment("inverted_pendulum")

    def reset(key):
        state = theirs.reset(key)
        return state, state.obs

    def step(state, action, key):
        state = theirs.step(state, action)
        done = state.done.astype(bool)
        return state, (state.obs, state.reward, done, jnp.zeros_like(done))

    env = adapter.from_id("inverted_pendulum")
    for steps in assert_same_steps(env, reset, step, 200, atol=1e-4):
        assert steps.terminated[-1]


def test_a_fall_terminates():
    """Also in the step in which the time is up."""
    push = jnp.ones((30, 1))
    _, _, steps = rollout(rljax.make("brax/inverted_pendulum"), jax.random.key(0), push)
    first = int(steps.terminated.argmax()) + 1
    assert 1 < first < 20 and not steps.truncated.any()
    assert abs(steps.next_obs[first - 1, 1]) > 0.2 > abs(steps.obs[first - 1, 1])
    env = rljax.make("brax/inverted_pendulum", max_episode_steps=first)
    _, _, steps = rollout(env, jax.random.key(0), push)
    assert steps.terminated[first - 1] and not steps.truncated[first - 1]


def test_the_time_limit_truncates():
    env = rljax.make("brax/reacher", max_episode_steps=7)  # has no other end
    _, _, steps = random_steps(env, 21)
    assert not steps.terminated.any()
    assert lengths_of_truncated_episodes(steps) == [7, 7, 7]


def test_limits_are_learned_as_truncations():
    assert learned_value("brax/reacher") == pytest.approx(10, abs=0.4)


def test_parameters():
    env = rljax.make("brax/inverted_pendulum", backend="spring", n_frames="2")
    assert env.spec.env_id == "brax/inverted_pendulum"
    with pytest.raises(ValueError, match="no option `backnd`: did you mean `backend`"):
        rljax.make("brax/inverted_pendulum", backnd="spring")
    with pytest.raises(ValueError, match="`backend` is 'bullet', but it must be one of general"):
        rljax.make("brax/inverted_pendulum", backend="bullet")
    with pytest.raises(ValueError, match="`ctrl_cost_weight` is 'high', but it must be a number"):
        rljax.make("brax/ant", ctrl_cost_weight="high")


@pytest.mark.slow
def test_ppo_learns_to_balance_an_object_of_brax():
    env = brax_environment("inverted_pendulum")
    run = rljax.train(
        "ppo", env, total_timesteps=32_768, num_envs=16, num_reports=8, eval_episodes=16,
        progress=False, env_params={"max_episode_steps": 100}, **PPO,
    )  # fmt: skip
    assert run.env_id == "InvertedPendulum"
    assert run.evaluation["returns"].mean() > 50
    assert np.isfinite(run.returns[0, 0]) and run.returns[0, 0] < 40


def test_objects_of_brax():
    env = brax_environment("inverted_pendulum")
    spec = rljax.make(env, max_episode_steps=50).spec
    assert spec.env_id == "InvertedPendulum" and spec.max_episode_steps == 50
    with pytest.raises(ValueError, match="no option `backend`"):
        rljax.make(env, backend="spring")
    with pytest.raises(ValueError, match="AutoResetWrapper of brax is for brax's own training"):
        rljax.make(brax.training.AutoResetWrapper(env))
    with pytest.raises(ValueError, match="EpisodeWrapper of brax is for brax's own training"):
        rljax.make(brax.training.EpisodeWrapper(env, 1000, 1))
