"""Runs spread over devices, and over threads of one: the same runs, whoever computes them."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import DriftConfig, bits, drift, walk

from rljax import networks
from rljax.envs import wrappers
from rljax.training import parallel, runs
from rljax.training.learner import make_learner
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")


def over_threads(num_runs, num_groups):
    return parallel._over_threads(num_runs, min(num_groups, num_runs))


WAYS = {"threads": over_threads, "devices": parallel.spread}


@pytest.fixture(params=list(WAYS))
def spread(request):
    return WAYS[request.param]


GROUPS = [("threads", 1), ("threads", 2), ("devices", 1), ("devices", 4)]


def make_tree(num_runs):
    keys = jax.random.split(jax.random.key(0), num_runs)
    return {"key": keys, "x": np.arange(2 * num_runs, dtype=np.float32).reshape(num_runs, 2)}


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
        assert bits(shared.read(grouped)) == bits(tree)


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
        two = shared.compile(lambda tree: (tree["x"] + 1, tree), grouped)
        plus, same = two(grouped)
        assert bits((shared.read(plus), shared.join(same))) == bits((tree["x"] + 1, tree))


def test_an_error_in_a_thread_is_an_error():
    shared = over_threads(2, 2)
    grouped = shared.split(jnp.arange(2.0))
    call = shared.compile(lambda x: x + 1, grouped)
    with pytest.raises(TypeError, match="Argument"):
        call([grouped[0], jnp.arange(7.0)])
    np.testing.assert_array_equal(shared.join(call(grouped)), [1, 2])


ENV = wrappers.batched(walk(), 2)


NUM_RUNS = 5
RATES = np.linspace(0.01, 0.1, NUM_RUNS, dtype=np.float32)
CONFIG = DriftConfig(num_envs=2, num_steps=4)


def make(config):
    return make_learner(drift(config, ENV.spec), ENV, config.num_steps)


def make_runs(way, num_groups):
    keys = jax.vmap(jax.random.key)(np.arange(NUM_RUNS))
    whole = jnp.zeros(NUM_RUNS, jnp.int32)
    starts = runs.Start(keys, {"learning_rate": jnp.asarray(RATES)}, whole)
    spread = WAYS[way](NUM_RUNS, num_groups)
    return runs.Runs(make, CONFIG, starts, spread, cache_key=("test_parallel", way, num_groups))


@pytest.fixture(scope="module")
def separate():
    """Each run by itself, in a plain loop of three updates."""

    @jax.jit
    def step(state, rate):
        return make(dataclasses.replace(CONFIG, learning_rate=rate)).step(state)

    ends = []
    for i, rate in enumerate(RATES):
        state = make(CONFIG).init(jax.random.key(i))
        for _ in range(3):
            state, _ = step(state, rate)
        ends.append(state)
    return jax.tree.map(lambda *x: jnp.stack(x), *ends)


@pytest.mark.parametrize(("way", "num_groups"), GROUPS)
def test_runs_are_the_same_however_they_are_grouped(way, num_groups, separate):
    work = make_runs(way, num_groups)
    for size in (2, 1):
        report = work.advance(size)
    np.testing.assert_array_equal(report.totals["losses/noise"].weight, [3] * NUM_RUNS)
    got = work.snapshot().state
    assert bits((got.key, got.env.time)) == bits((separate.key, separate.env.time))
    for x, y in zip(
        jax.tree.leaves((got.agent, got.obs)), jax.tree.leaves((separate.agent, separate.obs)),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("way", "num_groups"), GROUPS)
def test_a_new_report_begins_where_one_was_cleared(way, num_groups):
    work = make_runs(way, num_groups)
    work.advance(3)
    work.clear_report()
    assert work.snapshot().report.totals["losses/noise"].weight.max() == 0
    report = work.advance(2)
    np.testing.assert_array_equal(report.totals["losses/noise"].weight, [2] * NUM_RUNS)


@pytest.mark.parametrize(("way", "num_groups"), GROUPS)
def test_a_snapshot_keeps_and_can_be_put_back(way, num_groups):
    """While the runs go on: their buffers are donated to the next chunk, those kept are not."""
    work = make_runs(way, num_groups)
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


WORKERS = 4


def worker_starts():
    """Entries of two runs, those of a run side by side."""
    keys = jax.vmap(jax.random.key)(np.repeat(np.arange(2), WORKERS))
    worker = jnp.tile(jnp.arange(WORKERS, dtype=jnp.int32), 2)
    return runs.Start(keys, {"learning_rate": jnp.full(2 * WORKERS, 0.1)}, worker)


def of_workers(average):
    """Two runs, each learned by four workers."""

    def make(config):
        agent = drift(config, ENV.spec)

        def update(state, trajectory, key):
            trajectory = trajectory._replace(reward=average(trajectory.reward))
            return agent.update(state, trajectory, jax.random.key(0))

        return make_learner(agent._replace(update=update), ENV, config.num_steps)

    return runs.Runs(make, CONFIG, worker_starts(), parallel.spread(2, workers=WORKERS))


def test_entries_of_workers_are_split_by_worker():
    shared = parallel.spread(3, workers=WORKERS)
    assert (shared.num_groups, shared.width, shared.workers) == (WORKERS, 3, WORKERS)
    tree = make_tree(3 * WORKERS)
    grouped = shared.split(tree)
    assert bits(shared.join(grouped)) == bits(tree)
    assert bits(shared.read(grouped)) == bits(jax.tree.map(lambda x: x[::WORKERS], tree))
    mean = shared.compile(lambda tree: jax.lax.pmean(tree["x"], parallel.WORKERS), grouped)
    expected = tree["x"].reshape(3, WORKERS, 2).mean(axis=1)
    np.testing.assert_allclose(shared.read(mean(grouped)), expected)


def test_workers_share_what_they_learn_and_report_together():
    work = of_workers(lambda x: jax.lax.pmean(x, parallel.WORKERS))
    report = work.advance(3)
    np.testing.assert_array_equal(report.totals["losses/noise"].weight, [3 * WORKERS] * 2)
    state = jax.tree.map(lambda x: x.reshape(2, WORKERS, *x.shape[1:]), work.snapshot().state)
    for run in range(2):
        for worker in range(1, WORKERS):
            same = jax.tree.map(lambda x, i=(run, worker): x[i], state.agent.params)
            assert bits(same) == bits(jax.tree.map(lambda x, i=(run, 0): x[i], state.agent.params))
            assert not np.array_equal(state.obs[run, worker], state.obs[run, 0])
    assert not np.array_equal(state.agent.params["w"][0], state.agent.params["w"][1])
    kept = work.snapshot()
    work.advance(2)
    after = bits(work.snapshot())
    work.put_back(kept)
    work.advance(2)
    assert bits(work.snapshot()) == after


def test_workers_that_part_are_noticed():
    work = of_workers(lambda x: x)
    with pytest.raises(RuntimeError, match="must pass through `average`"):
        work.advance(1)


def test_there_must_be_as_many_devices():
    with pytest.raises(ValueError, match="`devices` is 9, but JAX sees 4"):
        parallel.spread(1, workers=9)


def test_threads_do_not_wait_for_each_other_for_ever():
    """With all cores wanted by every share at once, in what initialises and uses a network."""
    network = networks.actor_critic_network(
        EnvSpec(obs_shape=(3,), num_actions=2), (64, 64), "tanh"
    )
    done = []

    def one(key):
        params = network.init(key, jnp.zeros((1, 3)))
        obs = jax.random.normal(key, (512, 3))
        return jax.grad(lambda params: network.apply(params, obs)[1].sum())(params)

    def work():
        for num_runs in (1, 2, 3, 5, 8):
            spread = over_threads(num_runs, 2)
            grouped = spread.split(jax.random.split(jax.random.key(0), num_runs))
            call = spread.compile(jax.vmap(one), grouped, options=parallel.ONCE)
            for _ in range(5):
                slopes = spread.join(call(grouped))
            assert jax.tree.leaves(slopes)[0].shape[0] == num_runs
            done.append(num_runs)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout=300)
    assert done == [1, 2, 3, 5, 8]
