"""The learning loop of agents with replay: batches, metrics, target updates, stored items."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.agents import off_policy
from rljax.agents import replay_schedule as schedule
from rljax.agents.off_policy import off_policy_loop
from rljax.agents.replay_schedule import ReplayConfig
from rljax.config import config, option
from rljax.replay import n_step, ring, sequence_priority, sequences, uniform
from rljax.types import EnvSpec, RecurrentObs, Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")

SPEC = EnvSpec(obs_shape=(2,), num_actions=3, num_envs=3)
CONFIG = ReplayConfig(
    num_envs=3, num_steps=2, total_timesteps=60, buffer_size=60, batch_size=4, learning_starts=7,
    train_frequency=4, gradient_steps=2, target_update_interval=12, gamma=0.9,
)  # fmt: skip
NUM_UPDATES, MAX_STEPS = 10, 100


def rollout_of(update, spec=SPEC, config=CONFIG):
    """A rollout whose observations and rewards count the environment steps."""
    shape = config.num_steps, config.num_envs
    step = update * shape[0] * shape[1] + jnp.arange(shape[0] * shape[1]).reshape(shape)
    obs = jnp.broadcast_to(step[..., None], (*shape, *spec.obs_shape)).astype(jnp.float32)
    flags = jnp.zeros(shape, bool)
    return Transition(obs, step % 3, step.astype(jnp.float32), flags, flags, obs + 0.5)


class Records(NamedTuple):
    """What gradient steps were given, by their order; `params` is the number of them."""

    params: Any
    number: Any
    target_is_due: Any
    noise: Any
    obs: Any
    discount: Any


def empty_records(spec=SPEC, batch_size=4):
    return Records(
        jnp.int32(0), jnp.full(MAX_STEPS, -1), jnp.zeros(MAX_STEPS, bool), jnp.zeros(MAX_STEPS),
        jnp.zeros((MAX_STEPS, batch_size, *spec.obs_shape)), jnp.zeros((MAX_STEPS, batch_size)),
    )  # fmt: skip


def record(records, batch):
    """A gradient step that learns nothing and writes its batch down."""
    count = records.params
    noise = jnp.float32(0) if batch.noise is None else batch.noise
    records = Records(
        count + 1, records.number.at[count].set(batch.number),
        records.target_is_due.at[count].set(batch.target_is_due),
        records.noise.at[count].set(noise), records.obs.at[count].set(batch.transitions.obs),
        records.discount.at[count].set(batch.discount),
    )  # fmt: skip
    number = batch.number.astype(jnp.float32)
    metrics = {"losses/number": number, "losses/weight": batch.weight.mean()}
    return records, jnp.ones_like(batch.weight), metrics


def run(loop, sample_noise=None, num_updates=NUM_UPDATES, rollout=rollout_of):
    """The state after `num_updates` updates with `record`, and the metrics of each of them."""

    @jax.jit
    def learn(state, trajectory, key):
        return loop.learn(state, trajectory, key, record, sample_noise)

    state, metrics = loop.init(empty_records()), []
    for update in range(num_updates):
        state, row = learn(state, rollout(update), jax.random.key(update))
        metrics.append(row)
    return state, metrics


@pytest.mark.parametrize("gradient_steps", [1, 2])
@pytest.mark.parametrize("train_frequency", [4, 9])
def test_gradient_steps_are_numbered_over_the_whole_run(gradient_steps, train_frequency):
    """And metrics are means over the gradient steps of an update, which may have none."""
    config = dataclasses.replace(
        CONFIG, gradient_steps=gradient_steps, train_frequency=train_frequency
    )
    state, metrics = run(off_policy_loop(config, SPEC))
    num_due = schedule.gradient_steps_by(config, 6 * jnp.arange(NUM_UPDATES + 1))
    num_total = int(num_due[-1])
    assert state.params == num_total > 5 and state.env_steps.value == 60
    np.testing.assert_array_equal(state.learned.number[:num_total], np.arange(num_total))
    np.testing.assert_array_equal(state.learned.number[num_total:], -1)
    is_due = schedule.target_is_due(config, jnp.arange(num_total))
    assert 0 < is_due.sum() < num_total
    np.testing.assert_array_equal(state.learned.target_is_due[:num_total], is_due)
    for row, first, last in zip(metrics, num_due[:-1], num_due[1:], strict=True):
        mean = row["losses/number"]
        assert mean.weight == last - first
        assert mean.total == np.arange(first, last).sum()
        assert row["losses/weight"].total == last - first  # 1 in uniform replay
    assert metrics[0]["losses/number"].weight == 0


def test_noise_has_one_row_for_each_gradient_step():
    """Rows of an update follow each other, and differ between updates."""

    def sample_noise(key, num):
        return 10.0 * jax.random.randint(key, (), 1, 1000) + jnp.arange(num)

    state, _ = run(off_policy_loop(CONFIG, SPEC), sample_noise)
    noise = np.asarray(state.learned.noise[: int(state.params)])
    num_due = schedule.gradient_steps_by(CONFIG, 6 * jnp.arange(NUM_UPDATES + 1))
    starts = set()
    for first, last in zip(num_due[:-1], num_due[1:], strict=True):
        if last > first:
            starts.add(float(noise[first]))
            np.testing.assert_array_equal(noise[first:last], noise[first] + np.arange(last - first))
            assert noise[first] % 10 == 0
    assert len(starts) > 5


def test_the_discount_is_gamma_or_that_of_n_step_replay():
    state, _ = run(off_policy_loop(CONFIG, SPEC))
    np.testing.assert_allclose(state.learned.discount[: int(state.params)], 0.9, rtol=1e-6)
    replay = n_step(uniform(60, 4), 2, 0.9, 3)
    state, _ = run(off_policy_loop(CONFIG, SPEC, replay=replay))
    np.testing.assert_allclose(state.learned.discount[: int(state.params)], 0.81, rtol=1e-6)


@config
class NormalizedConfig(ReplayConfig):
    normalize_obs: bool = option(True, "normalize observations by running mean and variance")


def test_sampled_observations_are_standardized_by_the_moments_before_the_update():
    """The buffer has them unnormalized; an update uses the moments of all rollouts before it."""
    options = dataclasses.asdict(CONFIG)
    loop = off_policy_loop(NormalizedConfig(**options), SPEC)
    state, _ = run(loop, num_updates=9)
    np.testing.assert_array_equal(ring.contents(state.replay).obs[:54, 0], np.arange(54))
    first, last = schedule.gradient_steps_by(CONFIG, jnp.array([48, 54]))
    before = np.arange(48.0)
    steps = state.learned.obs[first:last] * before.std() + before.mean()
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert np.unique(np.round(steps)).size > 5 and steps.min() >= 0 and steps.max() < 54
    after = np.arange(54.0)
    obs = jnp.array([[3.0, 50.0]])
    expected = (obs - after.mean()) / after.std()
    np.testing.assert_allclose(loop.standardize(state, obs), expected, rtol=1e-4)
    with_memory = RecurrentObs(obs, jnp.zeros((1, 4)))
    np.testing.assert_allclose(loop.standardize(state, with_memory), expected, rtol=1e-4)


def test_another_object_than_a_replay_is_rejected_by_the_maker():
    with pytest.raises(ValueError, match="`replay` is the function `uniform` without"):
        off_policy_loop(CONFIG, SPEC, replay=uniform)


def test_the_target_moves_by_tau_where_an_update_is_due():
    target, params = jnp.array([1.0, 2.0]), jnp.array([3.0, -2.0])
    moved = off_policy.update_target(target, params, 0.25, jnp.bool_(True))
    np.testing.assert_allclose(moved, [1.5, 1.0])
    kept = off_policy.update_target(target, params, 0.25, jnp.bool_(False))
    np.testing.assert_array_equal(kept, target)
    extreme = jnp.array([0.1, 1e-30]), jnp.array([1 / 3, 1e30])
    copy = off_policy.update_target(*extreme, jnp.float32(1.0), jnp.bool_(True))
    np.testing.assert_array_equal(copy, extreme[1])  # to the bit


def test_items_have_the_dtypes_of_the_example():
    """Integer observations are stored as floats, unless they are state indices."""
    spec = EnvSpec(obs_shape=(2,), num_actions=3, num_envs=2)
    obs = jnp.full((4, 2, 2), 255, jnp.uint8)
    flags = jnp.zeros((4, 2), bool)
    trajectory = Transition(
        obs, flags.astype(jnp.uint8), jnp.zeros((4, 2)), flags, flags, obs, {"x": 1}
    )
    item = off_policy.example_transition(spec)
    items = off_policy.as_items(trajectory, item)
    assert jax.tree.map(lambda x: x.dtype, items) == jax.tree.map(lambda x: x.dtype, item)
    assert items.obs.max() == 255.0
    numbered = off_policy.example_transition(spec._replace(obs_shape=(), num_states=5))
    assert numbered.obs.dtype == jnp.int32


def test_items_have_neither_a_memory_nor_the_action_that_carries_it():
    spec = EnvSpec(obs_shape=(2,), action_shape=(1,), num_envs=2)
    obs, memory, flags = jnp.ones((4, 2, 2)), jnp.full((4, 2, 3), 7.0), jnp.zeros((4, 2), bool)
    trajectory = Transition(
        RecurrentObs(obs, memory), (jnp.full((4, 2, 1), 0.5), memory), jnp.zeros((4, 2)), flags,
        flags, RecurrentObs(obs + 1, memory),
    )  # fmt: skip
    item = off_policy.example_transition(spec)
    items = off_policy.as_items(trajectory, item)
    assert jax.tree.structure(items) == jax.tree.structure(item)
    np.testing.assert_array_equal(items.obs, obs)
    np.testing.assert_array_equal(items.next_obs, obs + 1)
    np.testing.assert_array_equal(items.action, np.full((4, 2, 1), 0.5))


def test_sequences_with_the_extras_that_are_asked_for_are_replayed():
    config = dataclasses.replace(CONFIG, learning_starts=24)
    replay = sequences(60, batch_size=4, length=3, num_envs=3, exponent=0.6)
    loop = off_policy_loop(config, SPEC, replay=replay, extras={"log_prob": jnp.float32(0)})

    def gradient_step(batches, batch):
        steps = batch.transitions
        values = {
            "reward_gap": jnp.diff(steps.reward, axis=0).mean(),  # 3 environments: 3 steps apart
            "extras": jnp.abs(steps.extras["log_prob"] + steps.reward).max(),
        }
        assert set(steps.extras) == {"log_prob"}
        assert steps.obs.shape == (3, 4, 2) and batch.discount.shape == (3, 4)
        assert batch.weight.shape == (4,)
        return batches, sequence_priority(steps.reward), values

    @jax.jit
    def learn(state, trajectory, key):
        return loop.learn(state, trajectory, key, gradient_step)

    state = loop.init(jnp.float32(0))
    for update in range(6):
        steps = rollout_of(update)
        steps = steps._replace(extras={"log_prob": -steps.reward, "unused": steps.obs})
        state, metrics = learn(state, steps, jax.random.key(update))
    assert float(metrics["reward_gap"].total / metrics["reward_gap"].weight) == 3.0
    assert float(metrics["extras"].total) == 0.0
