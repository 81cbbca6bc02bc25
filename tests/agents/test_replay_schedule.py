"""The schedule of agents with replay, against a loop over single environment steps."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from rljax.agents import replay_schedule as schedule
from rljax.agents.replay_schedule import ReplayConfig

SIZES = [  # num_envs, num_steps, learning_starts, train_frequency, gradient_steps, target interval
    (1, 1, 1, 1, 1, 4),
    (1, 1, 5, 4, 2, 10),
    (4, 2, 10, 3, 1, 7),  # several updates in a rollout, which they do not divide
    (3, 1, 8, 8, 5, 1),  # one update in several rollouts
    (2, 5, 37, 1, 3, 500),
    (8, 16, 100, 1000, 1, 300),
    (5, 3, 29, 7, 2, 14),
]


def config_of(num_envs, num_steps, starts, frequency, steps, interval, total=2000):
    return ReplayConfig(
        num_envs=num_envs, num_steps=num_steps, learning_starts=starts, batch_size=1,
        train_frequency=frequency, gradient_steps=steps, target_update_interval=interval,
        total_timesteps=total,
    )  # fmt: skip


def plain_schedule(config):
    """The gradient steps due by each environment step, and those that update the target."""
    num_due, target_updates, count = [0], [], 0
    for step in range(1, config.total_timesteps + 1):
        if step >= config.learning_starts and step % config.train_frequency == 0:
            count += config.gradient_steps
            interval = config.target_update_interval
            previous = step - config.train_frequency
            if interval <= config.train_frequency:  # as in REDQ: after every gradient step
                target_updates.extend(range(count - config.gradient_steps, count))
            elif any(s % interval == 0 for s in range(previous + 1, step + 1)):
                target_updates.append(count - 1)
        num_due.append(count)
    return num_due, target_updates


@pytest.mark.parametrize("sizes", SIZES)
def test_gradient_steps_and_target_updates_equal_those_of_a_loop(sizes):
    config = config_of(*sizes)
    num_due, target_updates = plain_schedule(config)
    steps = jnp.arange(len(num_due))
    np.testing.assert_array_equal(schedule.gradient_steps_by(config, steps), num_due)
    numbers = jnp.arange(num_due[-1])
    is_due = schedule.target_is_due(config, numbers)
    np.testing.assert_array_equal(np.flatnonzero(is_due), target_updates)
    rollout = config.num_envs * config.num_steps
    due_in_rollouts = np.diff(num_due[::rollout])
    assert due_in_rollouts.max() <= schedule.max_gradient_steps(config)
    assert due_in_rollouts[: (config.learning_starts - 1) // rollout].sum() == 0


def test_the_learning_rate_is_annealed_over_all_gradient_steps():
    """The last gradient step has one part in `num_gradient_steps` of the initial rate."""
    config = config_of(5, 3, 29, 7, 2, 14)
    num_due, _ = plain_schedule(dataclasses.replace(config, total_timesteps=1995))  # whole rollouts
    rate = schedule.annealed(config, 0.01)
    np.testing.assert_allclose(rate(0), 0.01, rtol=1e-6)
    np.testing.assert_allclose(rate(num_due[-1] - 1), 0.01 / num_due[-1], rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buffer_size": 127}, "`buffer_size` is 127, but a batch has 128"),
        ({"num_envs": 8, "num_steps": 300, "buffer_size": 2000}, "`buffer_size` is 2000, but one"),
        (
            {"learning_starts": 50_001, "buffer_size": 50_000},
            "`learning_starts` is 50001, but the replay buffer holds 50000",
        ),
        (
            {"learning_starts": 1000, "total_timesteps": 999},
            "`learning_starts` is 1000, but the run has only 999 steps",
        ),
        ({"learning_starts": 127}, "`learning_starts` is 127, but the first batch needs 128"),
        ({"learning_starts": 135, "n_step": 3}, "the first batch needs 136 steps"),
        ({"train_frequency": 0}, "`train_frequency` is 0, but it must be at least 1"),
        ({"tau": 1.5}, "`tau` is 1.5, but it must be at least 0 and at most 1"),
        ({"priority_exponent": -0.1}, "`priority_exponent` is -0.1"),
    ],
)
def test_impossible_options_are_rejected_in_one_sentence(options, message):
    with pytest.raises(ValueError) as error:
        ReplayConfig(**options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_importance_sampling_exponent_is_annealed_linearly_to_1():
    config = ReplayConfig(total_timesteps=100_000, importance_exponent=0.4)
    steps = jnp.array([0, 25_000, 100_000])
    np.testing.assert_allclose(schedule.annealed_beta(config, steps), [0.4, 0.55, 1.0], rtol=1e-6)
