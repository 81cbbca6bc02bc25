"""n-step replay against a plain loop over whole episodes, for rollouts of any length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay_helpers import jitted_samples

from rljax import replay
from rljax.replay import ring
from rljax.training import batching
from rljax.types import Shared, Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")
seeds = st.integers(0, 2**32 - 1)


def steps_of(rng, num_steps, num_envs, ends=0.25):
    """Random experience; an observation is `1000 * environment + step`."""
    numbers = 1000.0 * np.arange(num_envs) + np.arange(num_steps)[:, None]
    end = rng.random((num_steps, num_envs))
    action = rng.integers(5, size=numbers.shape).astype(np.int32)
    return Transition(
        obs=numbers.astype(np.float32), action=action,
        reward=rng.normal(size=numbers.shape).astype(np.float32), terminated=end < ends / 2,
        truncated=(end >= ends / 2) & (end < ends), next_obs=(numbers + 0.5).astype(np.float32),
    )  # fmt: skip


def plain_items(steps, n, gamma):
    """The item of every step whose return is complete, by its observation."""
    num_steps, num_envs = steps.reward.shape
    items = {}
    for t in range(num_steps - n + 1):
        for b in range(num_envs):
            n_step_return, k = 0.0, 0
            while k < n:
                at = t + k, b
                n_step_return += float(gamma) ** k * float(steps.reward[at])
                k += 1
                if steps.terminated[at] or steps.truncated[at]:
                    break
            items[float(steps.obs[t, b])] = (
                steps.action[t, b], n_step_return, steps.terminated[at], steps.truncated[at],
                steps.next_obs[at], float(gamma) ** k,
            )  # fmt: skip
    return items


def rows(steps, start, end):
    return jax.tree.map(lambda x: jnp.asarray(x[start:end]), steps)


def example(steps):
    return jax.tree.map(lambda x: x[0, 0], steps)


def stored(buffer, state, inner):
    """All items of the ring, in the order of their slots."""
    data = ring.contents(state.replay if inner == "uniform" else state.replay.ring)
    return jax.tree.map(lambda x: np.asarray(x[: int(buffer.size(state))]), data)


def make(inner, capacity, n, gamma, num_envs, batch_size=4):
    return replay.n_step(getattr(replay, inner)(capacity, batch_size), n, gamma, num_envs)


@functools.cache
def buffer_and_add(inner, n):  # one program for all examples of a shape
    buffer = make(inner, 100, n, 0.9, 2)
    return buffer, jax.jit(buffer.add)


@pytest.mark.parametrize("inner", ["uniform", "prioritized"])
@given(seed=seeds, n=st.sampled_from([1, 3, 7]), num_steps=st.sampled_from([1, 5]))
def test_every_step_becomes_one_item(inner, seed, n, num_steps):
    rng, num_envs, calls, gamma = np.random.default_rng(seed), 2, 8, 0.9
    steps = steps_of(rng, calls * num_steps, num_envs)
    buffer, add = buffer_and_add(inner, n)
    state = buffer.init(example(steps))
    for call in range(calls):
        state = add(state, rows(steps, call * num_steps, (call + 1) * num_steps))
        num_complete = max(0, (call + 1) * num_steps - (n - 1))
        assert buffer.size(state) == num_complete * num_envs
    expected, items = plain_items(steps, n, gamma), stored(buffer, state, inner)
    assert items.obs.tolist() == [
        1000.0 * b + t for t in range(calls * num_steps - n + 1) for b in range(num_envs)
    ]  # one each, in order
    fields = (
        items.action, items.reward, items.terminated, items.truncated, items.next_obs,
        items.extras["discount"],
    )  # fmt: skip
    wanted = np.array([expected[obs] for obs in items.obs.tolist()]).reshape(-1, len(fields))
    np.testing.assert_allclose(np.stack(fields, axis=1), wanted, rtol=1e-5, atol=1e-5)
    assert (np.abs(items.next_obs - items.obs) < n).all()  # at most n steps later, same environment
    if inner == "prioritized" and buffer.size(state):
        keys = jax.random.split(jax.random.key(0), 50)
        sample = jitted_samples(buffer)(state, keys)
        assert set(np.unique(sample.transitions.obs)) <= set(expected)


def one_environment(reward, terminated, truncated, next_obs):
    column = [np.asarray(x)[:, None] for x in (reward, terminated, truncated, next_obs)]
    obs = np.arange(len(reward), dtype=np.float32)[:, None]
    return Transition(
        obs, np.zeros_like(obs, np.int32), column[0].astype(np.float32),
        column[1].astype(bool), column[2].astype(bool), column[3].astype(np.float32),
    )  # fmt: skip


def td_targets(items):
    """The targets where the value of an observation is the observation itself."""
    next_value = np.where(items.terminated, 0.0, items.next_obs)
    return items.reward + items.extras["discount"] * next_value


@pytest.mark.parametrize("parts", [(7,), (1,) * 7, (2, 4, 1)])
def test_targets_of_a_worked_example(parts):
    """Termination at the second step, a time limit at the fifth; the last two steps wait."""
    steps = one_environment(
        np.ones(7), [0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0], [10, 20, 30, 40, 50, 60, 70]
    )
    buffer = make("uniform", 16, 3, 0.9, 1)
    state, start, add = buffer.init(example(steps)), 0, jax.jit(buffer.add)
    for part in parts:
        state = add(state, rows(steps, start, start + part))
        start += part
    items = stored(buffer, state, "uniform")
    np.testing.assert_allclose(td_targets(items), [1.9, 1, 39.16, 42.4, 46], rtol=1e-6)
    np.testing.assert_allclose(items.extras["discount"], [0.81, 0.9, 0.729, 0.81, 0.9], rtol=1e-6)
    assert items.terminated.tolist() == [True, True, False, False, False]
    assert items.truncated.tolist() == [False, False, True, True, True]


def test_with_n_1_items_are_the_transitions_themselves():
    steps = steps_of(np.random.default_rng(0), 6, 2)
    buffer = make("uniform", 12, 1, 0.5, 2)
    state = jax.jit(buffer.add)(buffer.init(example(steps)), rows(steps, 0, 6))
    items = stored(buffer, state, "uniform")
    np.testing.assert_array_equal(items.extras["discount"], np.full(12, 0.5, np.float32))
    for name in ("obs", "action", "reward", "terminated", "truncated", "next_obs"):
        np.testing.assert_array_equal(getattr(items, name), getattr(steps, name).ravel())
        assert getattr(items, name).dtype == getattr(steps, name).dtype


def test_steps_after_the_end_of_an_episode_do_not_matter():
    """Even if they are NaN or infinite."""
    reward = [1.0, 1.0, np.nan, np.inf, np.nan]
    steps = one_environment(reward, [0, 1, 0, 0, 0], np.zeros(5), [1.0, 2, np.nan, np.nan, np.nan])
    items = replay.n_step_items(jax.tree.map(jnp.asarray, steps), 3, 0.9)
    np.testing.assert_allclose(items.reward[:2, 0], [1.9, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(items.next_obs[:2, 0], [2.0, 2.0])


def test_images_and_extras_are_stored():
    rng = np.random.default_rng(0)
    steps = steps_of(rng, 8, 2)
    images = rng.integers(256, size=(8, 2, 3, 3)).astype(np.uint8)
    next_obs, extras = {"image": images + 1}, {"log_prob": steps.reward}
    steps = steps._replace(obs={"image": images}, next_obs=next_obs, extras=extras)
    buffer = make("uniform", 16, 3, 0.9, 2)
    state = jax.jit(buffer.add)(buffer.init(example(steps)), rows(steps, 0, 8))
    items = stored(buffer, state, "uniform")
    assert items.obs["image"].dtype == np.uint8 and items.terminated.dtype == bool
    np.testing.assert_array_equal(items.obs["image"], images[:6].reshape(12, 3, 3))
    np.testing.assert_array_equal(items.extras["log_prob"], steps.extras["log_prob"][:6].ravel())


def test_a_full_ring_has_the_latest_complete_steps():
    """Long after the ring is full, these and no others are stored and sampled."""
    steps = steps_of(np.random.default_rng(1), 60, 2)
    buffer = make("prioritized", 14, 4, 0.9, 2)
    state, add = buffer.init(example(steps)), jax.jit(buffer.add)
    for start in range(0, 60, 3):
        state = add(state, rows(steps, start, start + 3))
        if buffer.size(state):
            sample = jitted_samples(buffer)(state, jax.random.split(jax.random.key(start), 40))
            latest = start + 3 - 4  # the last complete step
            sampled_steps = np.unique(np.asarray(sample.transitions.obs) % 1000)
            assert set(sampled_steps) == set(range(max(0, latest - 6), latest + 1))
            state = buffer.reprioritize(state, sample.indices[0], jnp.ones(4))


def test_gamma_may_be_a_tracer_in_a_program_of_many_runs():
    steps = steps_of(np.random.default_rng(2), 12, 2)
    expected = [plain_items(steps, 3, gamma) for gamma in (0.5, 0.9)]

    def run(state_and_gamma):
        state, gamma = state_and_gamma
        buffer = make("uniform", 40, 3, gamma, 2)
        return buffer.add(state, rows(steps, 0, 12)), gamma

    init = make("uniform", 40, 3, 0.5, 2).init(example(steps))
    start = jax.tree.map(lambda x: jnp.stack([x, x]), init), jnp.array([0.5, 0.9])
    state, _ = jax.jit(batching.over_runs(run, 2))(start)
    assert isinstance(state.num_empty, Shared) and state.num_empty.value.tolist() == [0, 0]
    for i in range(2):
        data = jax.tree.map(
            lambda x, i=i: np.asarray(x[:20]),
            ring.contents(jax.tree.map(lambda x, i=i: x[i], state.replay)),
        )
        returns = [expected[i][obs][1] for obs in data.obs.tolist()]
        np.testing.assert_allclose(data.reward, returns, rtol=1e-5, atol=1e-5)


def test_impossible_options_are_rejected():
    inner = replay.uniform(8, 2)
    for options, message in (
        ((0, 0.9, 1), "`n_step` is 0"),
        ((3, 1.5, 1), "`gamma` is 1.5"),
        ((3, 0.9, 0), "`num_envs` is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            replay.n_step(inner, *options)
    steps = steps_of(np.random.default_rng(0), 2, 1)
    with pytest.raises(ValueError, match="extras of a transition, but they are a tuple"):
        replay.n_step(inner, 3, 0.9, 1).init(example(steps)._replace(extras=(jnp.ones(()),)))


def test_n_step_replay_cannot_be_wrapped_in_n_step_replay():
    steps = steps_of(np.random.default_rng(0), 2, 1)
    buffer = replay.n_step(replay.n_step(replay.uniform(8, 2), 2, 0.9, 1), 3, 0.9, 1)
    state = buffer.init(example(steps))
    with pytest.raises(ValueError, match="cannot be wrapped in n-step replay: use one `n_step`"):
        buffer.add(state, rows(steps, 0, 2))
