"""Returns over n steps against a plain loop over whole episodes, for many calls of `add`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rljax import replay
from rljax.replay import ring
from rljax.training import runs
from rljax.types import Shared, Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")
seeds = st.integers(0, 2**32 - 1)


def steps_of(chance, num_steps, num_envs, ends=0.25):
    """Random experience whose observations tell its place: `1000 * environment + step`."""
    places = 1000.0 * np.arange(num_envs) + np.arange(num_steps)[:, None]
    kind = chance.random((num_steps, num_envs))
    action = chance.integers(5, size=places.shape).astype(np.int32)
    return Transition(
        obs=places.astype(np.float32), action=action,
        reward=chance.normal(size=places.shape).astype(np.float32), terminated=kind < ends / 2,
        truncated=(kind >= ends / 2) & (kind < ends), next_obs=(places + 0.5).astype(np.float32),
    )  # fmt: skip


def plain(steps, n, gamma):
    """The item of every step whose return is complete: a dict by its observation."""
    num_steps, num_envs = steps.reward.shape
    items = {}
    for t in range(num_steps - n + 1):
        for b in range(num_envs):
            total, k = 0.0, 0
            while k < n:
                at = t + k, b
                total += float(gamma) ** k * float(steps.reward[at])
                k += 1
                if steps.terminated[at] or steps.truncated[at]:
                    break
            items[float(steps.obs[t, b])] = (
                steps.action[t, b], total, steps.terminated[at], steps.truncated[at],
                steps.next_obs[at], float(gamma) ** k,
            )  # fmt: skip
    return items


def rows(steps, begin, end):
    return jax.tree.map(lambda x: jnp.asarray(x[begin:end]), steps)


def example(steps):
    return jax.tree.map(lambda x: x[0, 0], steps)


def held(buffer, state, inner):
    """All that the ring holds, in the order of its slots."""
    data = ring.contents(state.replay if inner == "uniform" else state.replay.ring)
    return jax.tree.map(lambda x: np.asarray(x[: int(buffer.size(state))]), data)


def make(inner, capacity, n, gamma, num_envs, batch_size=4):
    return replay.n_step(getattr(replay, inner)(capacity, batch_size), n, gamma, num_envs)


@pytest.mark.parametrize("inner", ["uniform", "prioritized"])
@given(seed=seeds, n=st.sampled_from([1, 3, 7]), num_steps=st.sampled_from([1, 5]))
def test_every_step_becomes_one_item(inner, seed, n, num_steps):
    chance, num_envs, calls, gamma = np.random.default_rng(seed), 2, 8, 0.9
    steps = steps_of(chance, calls * num_steps, num_envs)
    buffer = make(inner, 100, n, gamma, num_envs)
    state, add = buffer.init(example(steps)), adding(inner, n)
    for call in range(calls):
        state = add(state, rows(steps, call * num_steps, (call + 1) * num_steps))
        complete = max(0, (call + 1) * num_steps - (n - 1))
        assert buffer.size(state) == complete * num_envs
    expected, got = plain(steps, n, gamma), held(buffer, state, inner)
    assert got.obs.tolist() == [
        1000.0 * b + t for t in range(calls * num_steps - n + 1) for b in range(num_envs)
    ]  # one each, in order
    for row, obs in enumerate(got.obs.tolist()):
        fields = (
            got.action[row], got.reward[row], got.terminated[row], got.truncated[row],
            got.next_obs[row], got.extras["discount"][row],
        )  # fmt: skip
        np.testing.assert_allclose(fields, expected[obs], rtol=1e-5, atol=1e-5)
        assert abs(got.next_obs[row] - obs) < n  # of the same environment, at most n steps on
    if inner == "prioritized" and buffer.size(state):
        drawn = jax.vmap(buffer.sample, (None, 0))(state, jax.random.split(jax.random.key(0), 50))
        assert set(np.unique(drawn.transitions.obs)) <= set(expected)


@partial(jax.jit, static_argnums=(0, 1))
def _add(inner, n, state, items):
    return make(inner, 100, n, 0.9, 2).add(state, items)


def adding(inner, n):  # one program for all examples of a shape
    return partial(_add, inner, n)


def one_environment(reward, terminated, truncated, values):
    column = [np.asarray(x)[:, None] for x in (reward, terminated, truncated, values)]
    place = np.arange(len(reward), dtype=np.float32)[:, None]
    return Transition(
        place, np.zeros_like(place, np.int32), column[0].astype(np.float32),
        column[1].astype(bool), column[2].astype(bool), column[3].astype(np.float32),
    )  # fmt: skip


def targets(items):
    """The targets, where the value of the next observation is that observation."""
    left = np.where(items.terminated, 0.0, items.next_obs)
    return items.reward + items.extras["discount"] * left


@pytest.mark.parametrize("parts", [(7,), (1,) * 7, (2, 4, 1)])
def test_an_end_by_hand(parts):
    """K8: a death at the second step, a time limit at the fifth; two steps flush the window."""
    steps = one_environment(
        np.ones(7), [0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0], [10, 20, 30, 40, 50, 60, 70]
    )
    buffer = make("uniform", 16, 3, 0.9, 1)
    state, begin, add = buffer.init(example(steps)), 0, jax.jit(buffer.add)
    for part in parts:
        state = add(state, rows(steps, begin, begin + part))
        begin += part
    got = held(buffer, state, "uniform")
    np.testing.assert_allclose(targets(got), [1.9, 1, 39.16, 42.4, 46], rtol=1e-6)
    np.testing.assert_allclose(got.extras["discount"], [0.81, 0.9, 0.729, 0.81, 0.9], rtol=1e-6)
    assert got.terminated.tolist() == [True, True, False, False, False]
    assert got.truncated.tolist() == [False, False, True, True, True]


def test_one_step_is_the_transition_itself():
    steps = steps_of(np.random.default_rng(0), 6, 2)
    buffer = make("uniform", 12, 1, 0.5, 2)
    state = jax.jit(buffer.add)(buffer.init(example(steps)), rows(steps, 0, 6))
    got = held(buffer, state, "uniform")
    np.testing.assert_array_equal(got.extras["discount"], np.full(12, 0.5, np.float32))
    for name in ("obs", "action", "reward", "terminated", "truncated", "next_obs"):
        np.testing.assert_array_equal(getattr(got, name), getattr(steps, name).ravel())
        assert getattr(got, name).dtype == getattr(steps, name).dtype


def test_what_lies_beyond_an_end_does_not_matter():
    """Not even where it is no number."""
    reward = [1.0, 1.0, np.nan, np.inf, np.nan]
    steps = one_environment(reward, [0, 1, 0, 0, 0], np.zeros(5), [1.0, 2, np.nan, np.nan, np.nan])
    items = replay.n_step_items(jax.tree.map(jnp.asarray, steps), 3, 0.9)
    np.testing.assert_allclose(items.reward[:2, 0], [1.9, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(items.next_obs[:2, 0], [2.0, 2.0])


def test_images_and_extras_are_kept():
    chance = np.random.default_rng(0)
    steps = steps_of(chance, 8, 2)
    images = chance.integers(256, size=(8, 2, 3, 3)).astype(np.uint8)
    next_obs, extras = {"image": images + 1}, {"log_prob": steps.reward}
    steps = steps._replace(obs={"image": images}, next_obs=next_obs, extras=extras)
    buffer = make("uniform", 16, 3, 0.9, 2)
    state = jax.jit(buffer.add)(buffer.init(example(steps)), rows(steps, 0, 8))
    got = held(buffer, state, "uniform")
    assert got.obs["image"].dtype == np.uint8 and got.terminated.dtype == bool
    np.testing.assert_array_equal(got.obs["image"], images[:6].reshape(12, 3, 3))
    np.testing.assert_array_equal(got.extras["log_prob"], steps.extras["log_prob"][:6].ravel())


def test_the_window_wraps_around_with_the_ring():
    """Far beyond the capacity, the latest complete steps are held and drawn, and no others."""
    steps = steps_of(np.random.default_rng(1), 60, 2)
    buffer = make("prioritized", 14, 4, 0.9, 2)
    state, add = buffer.init(example(steps)), jax.jit(buffer.add)
    for begin in range(0, 60, 3):
        state = add(state, rows(steps, begin, begin + 3))
        if buffer.size(state):
            keys = jax.random.split(jax.random.key(begin), 40)
            drawn = jax.vmap(buffer.sample, (None, 0))(state, keys)
            latest = begin + 3 - 4  # the last step that is complete
            seen = np.unique(np.asarray(drawn.transitions.obs) % 1000)
            assert set(seen) == set(range(max(0, latest - 6), latest + 1))
            state = buffer.reprioritize(state, drawn.indices[0], jnp.ones(4))


def test_gamma_may_be_a_tracer_and_runs_go_side_by_side():
    steps = steps_of(np.random.default_rng(2), 12, 2)
    expected = [plain(steps, 3, gamma) for gamma in (0.5, 0.9)]

    def run(work):
        state, gamma = work
        buffer = make("uniform", 40, 3, gamma, 2)
        return buffer.add(state, rows(steps, 0, 12)), gamma

    init = make("uniform", 40, 3, 0.5, 2).init(example(steps))
    begin = jax.tree.map(lambda x: jnp.stack([x, x]), init), jnp.array([0.5, 0.9])
    state, _ = jax.jit(runs.over_runs(run, 2))(begin)
    assert isinstance(state.missing, Shared) and state.missing.value.tolist() == [0, 0]
    for i in range(2):
        data = jax.tree.map(
            lambda x, i=i: np.asarray(x[:20]),
            ring.contents(jax.tree.map(lambda x, i=i: x[i], state.replay)),
        )
        wanted = [expected[i][obs][1] for obs in data.obs.tolist()]
        np.testing.assert_allclose(data.reward, wanted, rtol=1e-5, atol=1e-5)


def test_what_cannot_be():
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
