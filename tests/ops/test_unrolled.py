"""Targets of unrolled models: by hand, and against rlax within an episode."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from rljax.ops.unrolled import last_step, unrolled

L = 5
REWARD = np.array([1.0, 2.0, 4.0, 8.0, 16.0], np.float32)
VALUE = np.array([100.0, 200.0, 300.0, 400.0, 500.0], np.float32)
FINAL = 1000.0


def column(x):
    return jnp.asarray(x)[:, None]


def targets(terminated=(), truncated=(), discount=0.5, n=2, num_unrolled=3):
    ends = [column(np.isin(np.arange(L), steps)) for steps in (terminated, truncated)]
    return unrolled(
        column(REWARD), ends[0], ends[1], column(VALUE), jnp.array([FINAL]), discount, n,
        num_unrolled,
    )  # fmt: skip


def test_returns_within_an_episode():
    found = targets()
    # r0 + r1 / 2 + v2 / 4, ...; the last bootstraps from `final_value`
    expected = [1 + 1 + 75, 2 + 2 + 100, 4 + 4 + 125, 8 + 8 + 250]
    np.testing.assert_array_equal(found.value[:, 0], expected)
    np.testing.assert_array_equal(found.reward[:, 0], REWARD[:3])
    assert found.is_real.all() and found.is_known.all()


def test_a_terminal_state_adds_nothing_and_is_absorbing():
    found = targets(terminated=[1])
    np.testing.assert_array_equal(found.value[:, 0], [1 + 1, 2, 0, 0])
    np.testing.assert_array_equal(found.reward[:, 0], [1, 2, 0])
    np.testing.assert_array_equal(found.is_real[:, 0], [True, True, False, False])
    assert found.is_known.all()


def test_a_time_limit_is_bootstrapped_and_nothing_is_known_after_it():
    found = targets(truncated=[1])
    np.testing.assert_array_equal(found.value[:2, 0], [1 + 1 + FINAL / 4, 2 + FINAL / 2])
    np.testing.assert_array_equal(found.is_real[:, 0], [True, True, False, False])
    np.testing.assert_array_equal(found.is_known, found.is_real)


def test_only_the_first_end_counts():
    """The next episode, its end and its kind of end do not change a target."""
    for other in ({"terminated": [3]}, {"truncated": [3]}):
        for first in ("terminated", "truncated"):
            flags: dict[str, Any] = {"terminated": [], "truncated": []}
            flags[first].append(1)
            alone = targets(**flags)
            for kind, steps in other.items():
                flags[kind] += steps
            both = targets(**flags)
            for a, b in zip(alone, both, strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_step_that_ends_by_termination_and_time_limit_is_terminal():
    found = targets(terminated=[1], truncated=[1])
    np.testing.assert_array_equal(found.value[:, 0], [2, 2, 0, 0])
    assert found.is_known.all()


def test_values_of_two_players_alternate_their_sign():
    found = targets(discount=-0.5, n=3, num_unrolled=2, terminated=[3])
    expected = [1 - 1 + 1 - 400 / 8, 2 - 2 + 2, 4 - 4]
    np.testing.assert_array_equal(found.value[:, 0], expected)


@pytest.mark.parametrize("n", [1, 3, 9])
def test_returns_are_those_of_rlax(n):
    """Random sequences of one episode, with returns that are cut at the end of the sequence."""
    keys = jax.random.split(jax.random.key(n), 3)
    reward, value = (jax.random.normal(key, (8, 4)) for key in keys[:2])
    final = jax.random.normal(keys[2], (4,))
    no = jnp.zeros((8, 4), bool)
    found = unrolled(reward, no, no, value, final, 0.9, n, 7)
    for i in range(4):
        next_value = jnp.append(value[1:, i], final[i])
        expected = rlax.n_step_bootstrapped_returns(reward[:, i], jnp.full(8, 0.9), next_value, n)
        np.testing.assert_allclose(found.value[:, i], expected, rtol=1e-5, atol=1e-6)


def test_last_step_is_the_first_end():
    no = np.zeros((4, 3), bool)
    terminated, truncated = no.copy(), no.copy()
    terminated[2, 0] = truncated[1, 0] = terminated[3, 1] = True
    np.testing.assert_array_equal(last_step(jnp.array(terminated), jnp.array(truncated)), [1, 3, 3])
