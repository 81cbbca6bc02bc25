"""Runs spread over devices, and over threads of one: the same runs, whoever computes them."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import DriftConfig, bits, drift, walk

from rljax.agents.ppo import PPOConfig, ppo
from rljax.envs import wrappers
from rljax.training import parallel, runs
from rljax.training.learner import make_learner

pytestmark = pytest.mark.usefixtures("quick_compiles")


def over_threads(num_runs, num_groups):
    return parallel._over_threads(num_runs, min(num_groups, num_runs))


WAYS = {"threads": over_threads, "devices": parallel.spread}


@pytest.fixture(params=list(WAYS))
def spread(request):
    return WAYS[request.param]


def make_tree(num_runs):
    keys = jax.random.split(jax.random.key(0), num_runs)
    return {
        "key": keys, "x": jnp.arange(2.0 * num_runs).reshape(num_runs, 2),
        "count": jnp.arange(num_runs), "flag": jnp.arange(num_runs) % 2 == 0,
    }  # fmt: skip


def test_one_cpu_device_is_shared_by_its_cores_and_several_are_used_themselves(monkeypatch):
    assert parallel.spread(8).num_groups == jax.device_count() == 4
    assert parallel.spread(3).num_groups == 3
    assert parallel.spread(8, 2).num_groups == 2
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(parallel, "num_cores", lambda: 3)
    assert parallel.spread(8).num_groups == 3
    assert parallel.spread(2).num_groups == 2
    assert isinstance(parallel.spread(2).split(make_tree(2)), list)


@pytest.mark.parametrize("num_groups", [1, 2, 3, 4])
def test_what_is_split_and_joined_is_as_before(spread, num_groups):
    for num_runs in range(1, 10):
        shared = spread(num_runs, num_groups)
        assert (shared.num_runs, shared.num_groups) == (num_runs, min(num_groups, num_runs))
        tree = make_tree(num_runs)
        grouped = shared.split(tree)
        assert bits(shared.join(grouped)) == bits(tree)
        some = shared.part(grouped, lambda share: share["x"])
        assert bits(shared.join(some)) == bits(tree["x"])


def test_a_call_gives_each_run_its_own_and_all_what_is_shared(spread):
    for num_runs, num_groups in ((1, 1), (3, 2), (5, 4), (8, 3)):
        shared, tree = spread(num_runs, num_groups), make_tree(num_runs)
        width = -(-num_runs // num_groups)
        seen = []

        def share(tree, factor, width=width, seen=seen):
            seen.append(tree["x"].shape)
            return {"sum": tree["x"].sum(axis=-1) * factor, "key": tree["key"]}

        grouped = shared.split(tree)
        call = shared.compile(share, grouped, np.float32(1))
        assert seen == [(width, 2)]  # traced once, for the shares are of one shape
        for factor in (2.0, 3.0):
            got = shared.join(call(grouped, np.float32(factor)))
            expected = {"sum": factor * tree["x"].sum(axis=-1), "key": tree["key"]}
            assert bits(got) == bits(expected)


def test_an_error_in_a_thread_is_an_error():
    shared = over_threads(2, 2)
    grouped = shared.split(jnp.arange(2.0))
    call = shared.compile(lambda x: x + 1, grouped)
    with pytest.raises(TypeError, match="argument"):
        call([grouped[0], jnp.arange(7.0)])
    np.testing.assert_array_equal(shared.join(call(grouped)), [1, 2])


ENV = wrappers.batched(walk(), 2)


def make_runs(spread, num_runs, agent=drift, config=None, **options):
    config = config or DriftConfig(num_envs=2, num_steps=4)
    keys = jax.vmap(jax.random.key)(np.arange(num_runs))
    rates = jnp.linspace(0.01, 0.1, num_runs)
    starts = runs.Start(keys, {"learning_rate": rates})

    def make(config):
        return make_learner(agent(config, ENV.spec), ENV, config.num_steps)

    return runs.Runs(make, config, starts, spread, **options)


def alone(num_runs, num_updates):
    """Each run by itself, in a plain loop."""
    states = []
    for i in range(num_runs):
        config = DriftConfig(num_envs=2, num_steps=4)
        rate = float(jnp.linspace(0.01, 0.1, num_runs)[i])
        config = dataclasses.replace(config, learning_rate=rate)
        learner = make_learner(drift(config, ENV.spec), ENV, 4)
        state = learner.init(jax.random.key(i))
        step = jax.jit(learner.step)
        for _ in range(num_updates):
            state, metrics = step(state)
        states.append((state, metrics))
    return jax.tree.map(lambda *x: jnp.stack(x), *states)


@pytest.fixture(scope="module")
def separate():
    return alone(5, 3)


@pytest.mark.parametrize("num_groups", [1, 2, 3, 4])
def test_runs_are_the_same_however_they_are_grouped(spread, num_groups, separate):
    work = make_runs(spread(5, num_groups), 5)
    for size in (2, 1):
        report = work.advance(size)
    state, metrics = separate
    np.testing.assert_allclose(report.totals["losses/noise"].weight, 3)
    got = work.snapshot()
    assert bits((got.state.key, got.state.env.time)) == bits((state.key, state.env.time))
    for x, y in zip(
        jax.tree.leaves((got.state.agent, got.state.obs)),
        jax.tree.leaves((state.agent, state.obs)),
        strict=True,
    ):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    work.clear_report()
    assert work.snapshot().report.totals["losses/noise"].weight.max() == 0
    report = work.advance(1)
    assert report.totals["losses/noise"].weight.tolist() == [1.0] * 5


@pytest.mark.parametrize("num_runs", [1, 3])
def test_a_snapshot_keeps_and_can_be_put_back(spread, num_runs):
    """While the runs go on: their buffers are donated to the next chunk, those kept are not."""
    work = make_runs(spread(num_runs, 2), num_runs)
    work.advance(2)
    kept = work.snapshot()
    before = bits(kept)
    work.advance(3)
    after = bits(work.snapshot())
    assert bits(kept) == before != after
    for _ in range(2):
        work.put_back(kept)
        assert bits(work.snapshot()) == before
        work.advance(3)
        assert bits(work.snapshot()) == after
        assert bits(kept) == before


def test_threads_do_not_wait_for_each_other_for_ever():
    """Initialisation and updates of PPO, with all cores wanted by every share at once."""
    config = PPOConfig(
        num_envs=2, num_steps=4, total_timesteps=80, hidden_sizes=(8,), num_minibatches=1,
        update_epochs=1,
    )  # fmt: skip
    done = []

    def work():
        for num_runs in (1, 2, 3, 5, 8):
            many = make_runs(over_threads(num_runs, 2), num_runs, ppo, config)
            for _ in range(3):
                many.advance(2)
            done.append(num_runs)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout=300)
    assert done == [1, 2, 3, 5, 8]
