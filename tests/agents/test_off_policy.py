"""When agents that learn from replay learn: against a loop over single environment steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.agents import off_policy
from rljax.agents.off_policy import ReplayConfig
from rljax.types import EnvSpec, Transition

SIZES = [  # num_envs, num_steps, learning_starts, train_frequency, gradient_steps, target interval
    (1, 1, 1, 1, 1, 4),
    (1, 1, 5, 4, 2, 10),
    (4, 2, 10, 3, 1, 7),  # several trainings in a rollout, which they do not divide
    (3, 1, 8, 8, 5, 1),  # one training in several rollouts
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
    """The gradient steps due by each environment step, and the moves of the target."""
    due, moves, count = [0], [], 0
    for step in range(1, config.total_timesteps + 1):
        if step >= config.learning_starts and step % config.train_frequency == 0:
            count += config.gradient_steps
            period = config.target_update_interval
            previous = step - config.train_frequency
            if any(s % period == 0 for s in range(previous + 1, step + 1)):
                moves.append(count - 1)
        due.append(count)
    return due, moves


@pytest.mark.parametrize("sizes", SIZES)
def test_gradient_steps_are_exact_over_the_run(sizes):
    config = config_of(*sizes)
    due, moves = plain_schedule(config)
    steps = jnp.arange(len(due))
    np.testing.assert_array_equal(off_policy.gradient_steps_by(config, steps), due)
    numbers = jnp.arange(due[-1])
    got = np.flatnonzero(off_policy.target_is_due(config, numbers))
    np.testing.assert_array_equal(got, moves)
    rollout = config.num_envs * config.num_steps
    in_rollouts = np.diff(due[::rollout])
    assert in_rollouts.max() <= off_policy.most_gradient_steps(config)
    assert in_rollouts[: (config.learning_starts - 1) // rollout].sum() == 0


def test_the_target_moves_by_tau_where_it_is_due():
    target, params = jnp.array([1.0, 2.0]), jnp.array([3.0, -2.0])
    moved = off_policy.moved_target(target, params, 0.25, jnp.bool_(True))
    np.testing.assert_allclose(moved, [1.5, 1.0])
    kept = off_policy.moved_target(target, params, 0.25, jnp.bool_(False))
    np.testing.assert_array_equal(kept, target)
    odd = jnp.array([0.1, 1e-30]), jnp.array([1 / 3, 1e30])
    copy = off_policy.moved_target(*odd, jnp.float32(1.0), jnp.bool_(True))
    np.testing.assert_array_equal(copy, odd[1])  # to the bit


def test_the_step_size_falls_to_one_step_over_all_that_are_taken():
    config = config_of(5, 3, 29, 7, 2, 14)
    due, _ = plain_schedule(dataclasses.replace(config, total_timesteps=1995))  # whole rollouts
    assert off_policy.learning_rate(config) == config.learning_rate
    rate = off_policy.learning_rate(dataclasses.replace(config, anneal_lr=True))
    assert callable(rate)
    np.testing.assert_allclose(rate(0), config.learning_rate, rtol=1e-6)
    np.testing.assert_allclose(rate(due[-1] - 1), config.learning_rate / due[-1], rtol=1e-3)


def test_items_have_the_types_of_the_example():
    """K24: whatever integers an environment observes, replay holds numbers to learn from."""
    spec = EnvSpec(obs_shape=(2,), num_actions=3, num_envs=2)
    obs = jnp.full((4, 2, 2), 255, jnp.uint8)
    flags = jnp.zeros((4, 2), bool)
    played = Transition(
        obs, flags.astype(jnp.uint8), jnp.zeros((4, 2)), flags, flags, obs, {"x": 1}
    )
    item = off_policy.example(spec)
    items = off_policy.as_items(played, item)
    assert jax.tree.map(lambda x: x.dtype, items) == jax.tree.map(lambda x: x.dtype, item)
    assert items.obs.max() == 255.0
    numbered = off_policy.example(spec._replace(obs_shape=(), num_states=5))
    assert numbered.obs.dtype == jnp.int32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buffer_size": 127}, "`buffer_size` is 127, but a batch takes 128"),
        ({"num_envs": 8, "num_steps": 300, "buffer_size": 2000}, "`buffer_size` is 2000, but one"),
        ({"learning_starts": 50_001}, "`learning_starts` is 50001, but replay holds 50000"),
        (
            {"learning_starts": 1000, "total_timesteps": 999},
            "`learning_starts` is 1000, but the run takes 999 steps",
        ),
        ({"learning_starts": 127}, "`learning_starts` is 127, but the first batch needs 128"),
        ({"learning_starts": 135, "n_step": 3}, "the first batch needs 136 steps"),
        ({"train_frequency": 0}, "`train_frequency` is 0, but it must be at least 1"),
        ({"tau": 1.5}, "`tau` is 1.5, but it must be at least 0 and at most 1"),
        ({"priority_exponent": -0.1}, "`priority_exponent` is -0.1"),
    ],
)
def test_bad_options_are_told_in_one_sentence(options, message):
    with pytest.raises(ValueError) as error:
        ReplayConfig(**options)
    assert message in str(error.value) and "\n" not in str(error.value)
