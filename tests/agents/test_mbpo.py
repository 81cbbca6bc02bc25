"""MBPO: what it imagines, against an exact model, and that real data stay apart from it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rljax
from rljax.agents.mbpo import MBPOConfig, mbpo
from rljax.envs import wrappers
from rljax.networks.ensemble import Prediction
from rljax.replay import ring
from rljax.training.learner import make_learner, train
from rljax.types import Env, EnvSpec, Step

pytestmark = pytest.mark.usefixtures("quick_compiles")

LIMIT, NUM_ROLLOUTS = 7, 20
SMALL: dict[str, Any] = {
    "num_envs": 2, "num_steps": 1, "total_timesteps": 80, "buffer_size": 100, "batch_size": 8,
    "real_batch_size": 3, "learning_starts": 20, "gradient_steps": 2, "hidden_sizes": (4,),
    "num_models": 2, "num_elites": 2, "model_learning_rate": 1e-9, "model_batch_size": 8,
    "model_train_frequency": 20, "model_max_epochs": 1, "num_rollouts": NUM_ROLLOUTS,
    "rollout_length": 3, "final_rollout_length": 3, "imagined_buffer_size": 1_000,
}  # fmt: skip


def drift(reward=1.0, continuous=False, termination=None) -> Env:
    """A point that moves by the action, truncated after 7 steps; the position starts at 100 n."""
    spec = EnvSpec((1,), num_actions=2, env_id="drift", termination=termination,
                   max_episode_steps=LIMIT)  # fmt: skip
    if continuous:
        spec = spec._replace(num_actions=0, action_shape=(1,), action_low=-2.0, action_high=2.0)

    def reset(key):
        position = 100.0 * jax.random.randint(key, (1,), 0, 10).astype(jnp.float32)
        return (position, jnp.int32(0)), position

    def step(state, action, key):
        move = action if continuous else 2.0 * action[None] - 1.0
        position, time = state[0] + move, state[1] + 1
        no = jnp.bool_(False)
        step = Step(position, jnp.float32(reward), no, time >= LIMIT, position)
        return (position, time), step

    return wrappers.batched(rljax.envs.auto_reset(Env(spec, reset, step)), 2)


class Exact(nn.Module):
    """Predicts a change by the action and a reward of 1e6, in standardized units."""

    @nn.compact
    def __call__(self, inputs):
        anchor = self.param("anchor", nn.initializers.zeros, ())
        mean = jnp.stack([inputs[..., -1], jnp.full(inputs.shape[:-1], 1e6)], axis=-1) + anchor
        return Prediction(mean, jnp.full(mean.shape, -50.0), jnp.full(inputs.shape[:-1], -9.0))


def run(env, num_updates=None, model=None, **options):
    config = MBPOConfig(**(SMALL | options))
    agent = mbpo(config, env.spec, model=model)
    learner = make_learner(agent, env, config.num_steps)
    num_updates = num_updates or config.num_updates
    state, metrics = jax.jit(lambda key: train(learner, key, num_updates))(jax.random.key(0))
    return state, jax.tree.map(np.asarray, metrics)


def imagined(state):
    buffer = state.agent.agent.replay.second
    items = ring.contents(buffer)
    return jax.tree.map(lambda x: np.asarray(x)[: int(buffer.size.value)], items)


def real(state):
    buffer = state.agent.agent.replay.first
    items = ring.contents(buffer)
    return jax.tree.map(lambda x: np.asarray(x)[: int(buffer.size.value)], items)


def test_rollouts_start_at_real_states_and_follow_the_model():
    state, _ = run(drift(), model=Exact())
    items = imagined(state)
    trainings = 1 + (SMALL["total_timesteps"] - SMALL["learning_starts"]) // 20
    assert len(items.reward) == trainings * 3 * NUM_ROLLOUTS
    rollouts = jax.tree.map(lambda x: x.reshape(trainings, 3, NUM_ROLLOUTS, *x.shape[1:]), items)
    np.testing.assert_array_equal(rollouts.obs[:, 1:], rollouts.next_obs[:, :-1])
    first = np.unique(rollouts.obs[:, 0])
    assert np.isin(first, real(state).obs).all() and len(first) > 3
    moves = (items.next_obs - items.obs)[:, 0]
    assert moves[items.action == 1].min() > moves[items.action == 0].max()


def test_a_time_limit_is_no_termination_inside_the_model():
    state, _ = run(drift(), model=Exact())
    assert real(state).truncated.any() and not real(state).terminated.any()
    items = imagined(state)
    assert len(items.reward) and not items.truncated.any() and not items.terminated.any()


def test_terminated_rollouts_go_on_from_other_real_states():
    def ends(obs, action, next_obs):
        return action == 1

    state, _ = run(drift(termination=ends))
    items = imagined(state)
    np.testing.assert_array_equal(items.terminated, items.action == 1)
    rollouts = jax.tree.map(lambda x: x.reshape(-1, 3, NUM_ROLLOUTS, *x.shape[1:]), items)
    ended = rollouts.terminated[:, :-1]
    before, after = rollouts.next_obs[:, :-1, :, 0], rollouts.obs[:, 1:, :, 0]
    np.testing.assert_array_equal(before[~ended], after[~ended])
    assert np.isin(after[ended], real(state).obs).all()


def test_imagined_rewards_never_reach_the_metrics_of_the_environment():
    state, metrics = run(drift(reward=2.0), model=Exact())
    assert imagined(state).reward.min() > 1e5
    np.testing.assert_array_equal(real(state).reward, 2.0)
    np.testing.assert_array_equal(metrics["charts/reward"], 2.0)
    returns = metrics["charts/episodic_return"]
    np.testing.assert_array_equal(returns[~np.isnan(returns)], 2.0 * LIMIT)


def test_the_length_of_rollouts_grows_over_the_run():
    lengths = []
    for updates in (10, 20, 30, 40):  # trainings after 20, 40, 60 and 80 steps
        state, _ = run(drift(), updates, rollout_length=1, final_rollout_length=5)
        lengths.append(len(imagined(state).reward) // NUM_ROLLOUTS)
    # steps before the rollouts of each training: 18, 38, 58, 78 of 80
    expected = [1 + round(4 * steps / 80) for steps in (18, 38, 58, 78)]
    np.testing.assert_array_equal(np.diff([0, *lengths]), expected)


@pytest.mark.parametrize("continuous", [False, True])
def test_real_transitions_are_stored_once_and_a_batch_has_the_two_parts(continuous):
    env = drift(continuous=continuous)
    state, metrics = run(env)
    assert len(real(state).reward) == SMALL["total_timesteps"]
    assert int(state.agent.agent.env_steps.value) == SMALL["total_timesteps"]
    assert np.isfinite(metrics["losses/critic_loss"]).all()
    assert np.isfinite(metrics["losses/model_loss"]).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_step": 3, "learning_starts": 40}, "`n_step` is 3"),
        ({"prioritized": True}, "`prioritized` is True"),
        ({"real_batch_size": 8}, "`real_batch_size` is 8"),
        ({"final_rollout_length": 2}, "`final_rollout_length` is 2"),
        ({"num_rollouts": 21}, "multiple of `num_elites`"),
        ({"imagined_buffer_size": 10}, "`imagined_buffer_size` is 10"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        MBPOConfig(**(SMALL | changes))


@pytest.mark.slow
def test_solves_pendulum_in_few_steps():
    run = rljax.train(
        "mbpo", "Pendulum-v1", num_seeds=4, seed=20, total_timesteps=2_500, buffer_size=5_000,
        num_rollouts=5_000, imagined_buffer_size=20_000, model_hidden_sizes=(64, 64), gamma=0.98,
        model_batch_size=64, num_models=5, hidden_sizes=(64, 64), learning_starts=256,
        gradient_steps=10, actor_learning_rate=1e-3, critic_learning_rate=1e-3,
        alpha_learning_rate=1e-3, eval_episodes=0,
    )  # fmt: skip
    returns = rljax.evaluate(run, 20)["returns"].mean(axis=-1)
    assert (returns > -250).sum() >= 3, returns
