"""Runs placed on devices, on threads or on workers: results do not depend on the placement."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import DriftConfig, bits, drift, walk

from rljax import networks
from rljax.envs import wrappers
from rljax.training import parallel, programs, runs
from rljax.training.learner import make_learner
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")


def on_threads(num_runs, num_shards):
    return parallel._on_threads(num_runs, min(num_shards, num_runs))


WAYS = {"threads": on_threads, "devices": parallel.place}


@pytest.fixture(params=list(WAYS))
def place(request):
    return WAYS[request.param]


SHARDS = [("threads", 1), ("threads", 2), ("devices", 1), ("devices", 4)]


def make_tree(num_runs):
    keys = jax.random.split(jax.random.key(0), num_runs)
    return {"key": keys, "x": np.arange(2 * num_runs, dtype=np.float32).reshape(num_runs, 2)}


def test_runs_are_placed_on_the_cores_of_one_cpu_device_or_on_several_devices(monkeypatch):
    assert parallel.place(8).num_shards == jax.device_count() == 4
    assert parallel.place(3).num_shards == 3
    assert parallel.place(8, 2).num_shards == 2
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(parallel, "num_cores", lambda: 3)
    assert parallel.place(8).num_shards == 3
    assert parallel.place(2).num_shards == 2
    assert isinstance(parallel.place(2).split(make_tree(2)), list)


@pytest.mark.parametrize("num_shards", [1, 2, 3, 4])
def test_join_and_read_undo_split(place, num_shards):
    for num_runs in range(1, 10):
        placement = place(num_runs, num_shards)
        assert (placement.num_runs, placement.num_shards) == (num_runs, min(num_shards, num_runs))
        tree = make_tree(num_runs)
        shards = placement.split(tree)
        assert bits(placement.join(shards)) == bits(tree)
        assert bits(placement.read(shards)) == bits(tree)


def test_a_compiled_function_maps_over_runs_with_shared_arguments(place):
    for num_runs, num_shards in ((1, 1), (3, 2), (5, 4), (8, 3)):
        placement, tree = place(num_runs, num_shards), make_tree(num_runs)
        width = -(-num_runs // num_shards)
        shapes = []

        def function(tree, factor, shapes=shapes):
            shapes.append(tree["x"].shape)
            return {"sum": tree["x"].sum(axis=-1) * factor, "key": tree["key"]}

        shards = placement.split(tree)
        call = placement.compile(function, shards, np.float32(1))
        assert shapes == [(width, 2)]  # traced once, because all shards have the same shape
        for factor in (2.0, 3.0):
            result = placement.join(call(shards, np.float32(factor)))
            expected = {"sum": factor * tree["x"].sum(axis=-1), "key": tree["key"]}
            assert bits(result) == bits(expected)
        two = placement.compile(lambda tree: (tree["x"] + 1, tree), shards)
        plus, same = two(shards)
        assert bits((placement.read(plus), placement.join(same))) == bits((tree["x"] + 1, tree))


@pytest.mark.parametrize(("num_runs", "num_shards"), [(2, 1), (4, 2)])
def test_a_program_states_its_memory(place, num_runs, num_shards):
    placement = place(num_runs, num_shards)
    shards = placement.split(jnp.zeros((num_runs, 250_000)))
    program = placement.compile(lambda x: x + 1, shards, donate=(0,))
    assert program.num_bytes == pytest.approx(num_runs * 10**6, rel=0.01)


@pytest.mark.parametrize(("num_runs", "num_shards"), [(2, 1), (4, 2)])
def test_results_larger_than_the_memory_are_refused_before_compiling(
    place, num_runs, num_shards, monkeypatch
):
    placement = place(num_runs, num_shards)
    shards = placement.split(jnp.zeros(num_runs))
    monkeypatch.setattr(programs, "_with_options", None)  # compiling would fail
    with pytest.raises(
        ValueError, match="state of the runs needs .* TiB of memory, .*lower `num_s"
    ):
        placement.compile(lambda x: x[:, None] + jnp.zeros((1, 2**42)), shards)


def test_an_error_in_a_thread_is_raised():
    placement = on_threads(2, 2)
    shards = placement.split(jnp.arange(2.0))
    call = placement.compile(lambda x: x + 1, shards)
    with pytest.raises(TypeError, match="Argument"):
        call([shards[0], jnp.arange(7.0)])
    np.testing.assert_array_equal(placement.join(call(shards)), [1, 2])


ENV = wrappers.batched(walk(), 2)


NUM_RUNS = 5
RATES = np.linspace(0.01, 0.1, NUM_RUNS, dtype=np.float32)
CONFIG = DriftConfig(num_envs=2, num_steps=4)


def make(config):
    return make_learner(drift(config, ENV.spec), ENV, config.num_steps)


def make_runs(way, num_shards):
    keys = jax.vmap(jax.random.key)(np.arange(NUM_RUNS))
    worker = jnp.zeros(NUM_RUNS, jnp.int32)
    inits = runs.RunInit(keys, {"learning_rate": jnp.asarray(RATES)}, worker)
    placement = WAYS[way](NUM_RUNS, num_shards)
    return runs.Runs(make, CONFIG, inits, placement, cache_key=("test_parallel", way, num_shards))


@pytest.fixture(scope="module")
def separate():
    """The final states of single runs, in a plain loop of three updates."""

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


@pytest.mark.parametrize(("way", "num_shards"), SHARDS)
def test_runs_do_not_depend_on_their_placement(way, num_shards, separate):
    all_runs = make_runs(way, num_shards)
    for size in (2, 1):
        report = all_runs.advance(size).report
    np.testing.assert_array_equal(report.totals["losses/noise"].weight, [3] * NUM_RUNS)
    got = all_runs.snapshot().state
    assert bits((got.key, got.env.time)) == bits((separate.key, separate.env.time))
    for x, y in zip(
        jax.tree.leaves((got.agent, got.obs)), jax.tree.leaves((separate.agent, separate.obs)),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("way", "num_shards"), SHARDS)
def test_clear_report_starts_a_new_report(way, num_shards):
    all_runs = make_runs(way, num_shards)
    all_runs.advance(3)
    all_runs.clear_report()
    assert all_runs.snapshot().report.totals["losses/noise"].weight.max() == 0
    report = all_runs.advance(2).report
    np.testing.assert_array_equal(report.totals["losses/noise"].weight, [2] * NUM_RUNS)


@pytest.mark.parametrize(("way", "num_shards"), SHARDS)
def test_a_snapshot_stays_valid_and_can_be_restored(way, num_shards):
    """The buffers of the runs are donated to the next chunk; those of a snapshot are not."""
    all_runs = make_runs(way, num_shards)
    all_runs.advance(2)
    snapshot = all_runs.snapshot()
    before = bits(snapshot)
    all_runs.advance(3)
    after = bits(all_runs.snapshot())
    assert bits(snapshot) == before != after
    for _ in range(2):
        all_runs.restore(snapshot)
        assert bits(all_runs.snapshot()) == before
        all_runs.advance(3)
        assert bits(all_runs.snapshot()) == after
        assert bits(snapshot) == before


WORKERS = 4


def worker_inits():
    """The inits of two runs, the workers of a run adjacent."""
    keys = jax.vmap(jax.random.key)(np.repeat(np.arange(2), WORKERS))
    worker = jnp.tile(jnp.arange(WORKERS, dtype=jnp.int32), 2)
    return runs.RunInit(keys, {"learning_rate": jnp.full(2 * WORKERS, 0.1)}, worker)


def make_worker_runs(average):
    """Two runs, each trained by four workers."""

    def make(config):
        agent = drift(config, ENV.spec)

        def update(state, trajectory, key):
            trajectory = trajectory._replace(reward=average(trajectory.reward))
            return agent.update(state, trajectory, jax.random.key(0))

        return make_learner(agent._replace(update=update), ENV, config.num_steps)

    return runs.Runs(make, CONFIG, worker_inits(), parallel.place(2, workers=WORKERS))


def test_run_worker_pairs_are_split_by_worker():
    placement = parallel.place(3, workers=WORKERS)
    assert (placement.num_shards, placement.width, placement.workers) == (WORKERS, 3, WORKERS)
    tree = make_tree(3 * WORKERS)
    shards = placement.split(tree)
    assert bits(placement.join(shards)) == bits(tree)
    assert bits(placement.read(shards)) == bits(jax.tree.map(lambda x: x[::WORKERS], tree))
    mean = placement.compile(lambda tree: jax.lax.pmean(tree["x"], parallel.WORKERS), shards)
    expected = tree["x"].reshape(3, WORKERS, 2).mean(axis=1)
    np.testing.assert_allclose(placement.read(mean(shards)), expected)


def test_workers_keep_equal_parameters_and_one_report():
    all_runs = make_worker_runs(lambda x: jax.lax.pmean(x, parallel.WORKERS))
    report = all_runs.advance(3).report
    np.testing.assert_array_equal(report.totals["losses/noise"].weight, [3 * WORKERS] * 2)
    state = all_runs.snapshot().state
    state = jax.tree.map(lambda x: x.reshape(2, WORKERS, *x.shape[1:]), state)
    for run in range(2):
        for worker in range(1, WORKERS):
            same = jax.tree.map(lambda x, i=(run, worker): x[i], state.agent.params)
            assert bits(same) == bits(jax.tree.map(lambda x, i=(run, 0): x[i], state.agent.params))
            assert not np.array_equal(state.obs[run, worker], state.obs[run, 0])
    assert not np.array_equal(state.agent.params["w"][0], state.agent.params["w"][1])
    snapshot = all_runs.snapshot()
    all_runs.advance(2)
    after = bits(all_runs.snapshot())
    all_runs.restore(snapshot)
    all_runs.advance(2)
    assert bits(all_runs.snapshot()) == after


def test_diverged_workers_are_detected():
    all_runs = make_worker_runs(lambda x: x)
    with pytest.raises(RuntimeError, match="in the agent's `update` through `average`"):
        all_runs.advance(1)


def test_too_many_devices_are_refused():
    with pytest.raises(ValueError, match="`devices` is 9, but JAX has 4"):
        parallel.place(1, workers=9)


def test_threads_do_not_deadlock():
    """Every shard initializes and uses a network, which occupies all cores."""
    network = networks.actor_critic_network(
        EnvSpec(obs_shape=(3,), num_actions=2), (64, 64), "tanh"
    )
    done = []

    def one(key):
        params = network.init(key, jnp.zeros((1, 3)))
        obs = jax.random.normal(key, (512, 3))
        return jax.grad(lambda params: network.apply(params, obs)[1].sum())(params)

    def run():
        for num_runs in (1, 2, 3, 5, 8):
            placement = on_threads(num_runs, 2)
            shards = placement.split(jax.random.split(jax.random.key(0), num_runs))
            call = placement.compile(jax.vmap(one), shards, options=programs.QUICK_COMPILE)
            for _ in range(5):
                grads = placement.join(call(shards))
            assert jax.tree.leaves(grads)[0].shape[0] == num_runs
            done.append(num_runs)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout=300)
    assert done == [1, 2, 3, 5, 8]


@pytest.mark.parametrize(
    ("num_runs", "max_shards", "shards", "width"),
    [(1, None, 1, 1), (10, None, 2, 5), (11, None, 4, 3), (64, None, 14, 5), (64, 2, 2, 32)],
)
def test_a_core_trains_few_runs_side_by_side(num_runs, max_shards, shards, width, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(parallel, "num_cores", lambda: 2)
    placement = parallel.place(num_runs, max_shards, max_width=5)
    assert (placement.num_shards, placement.width) == (shards, width)
    values = np.arange(num_runs)
    np.testing.assert_array_equal(placement.join(placement.split(values)), values)
