"""The contract tests: invariants that every agent must satisfy.

Each agent runs in its plain variant, and in a full variant with all of its features on.
"""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, LEARNERS
from probes import bits, circle, walk, with_memory

from rljax.agents import AGENTS
from rljax.config import field_types
from rljax.envs import wrappers
from rljax.experiment import checkpoint
from rljax.replay import ring
from rljax.training.learner import make_learner
from rljax.types import Mean, Transition, identity, params_of

pytestmark = pytest.mark.usefixtures("quick_compiles")

B, T, NUM_UPDATES, NUM_WORKERS = 2, 6, 3, 4
SMALL = {
    "num_envs": B, "num_steps": T, "total_timesteps": B * T * 8, "hidden_sizes": (4,),
    "learning_rate": 0.01, "ent_coef": 0.01, "update_epochs": 2, "num_minibatches": 2,
    "clip_eps": 0.01, "target_kl": 3e-3, "noise": "gaussian", "n_step": 1,
    "normalize_obs": False, "normalize_reward": False,
}  # fmt: skip
FULL = {
    "normalize_obs": True, "normalize_reward": True, "normalize_advantage": True, "surrogate": "kl",
    "clip_value": True, "double": True, "dueling": True, "prioritized": True, "n_step": 3,
    "noise": "ornstein_uhlenbeck",
}  # fmt: skip
# one agent of each kind of update, since each operation is compiled by itself without `jit`
WITHOUT_JIT = [("sarsa_lambda", False), ("ppo", True), ("dqn", True), ("sac", True)]
FEW_ITERATIONS = {  # each operation is dispatched by itself without `jit`
    "update_epochs": 1, "num_minibatches": 1, "gradient_steps": 1, "cg_iterations": 2,
    "num_halvings": 2,
}  # fmt: skip
# fields of an agent's state that hold the experience of one worker and are not averaged
WORKER_FIELDS = ("running_return", "replay", "episode", "model", "planner", "waiting", "time")


def config_of(name, is_full):
    options = SMALL | (FULL if is_full else {}) | CASES[name].options
    known = field_types(AGENTS[name].config)
    return AGENTS[name].config(**{k: v for k, v in options.items() if k in known})


def has_full_variant(name):
    return config_of(name, True) != config_of(name, False)


def run_id(param):
    name, is_full = param
    return f"{name}{'-full' * is_full}"


class AgentRun:
    """An agent in a small environment, its compiled programs, and its first updates."""

    def __init__(self, name, is_full):
        self.name, self.is_full, self.row = name, is_full, AGENTS[name]
        self.config = config_of(name, is_full)
        actions = self.row.actions
        continuous = "discrete" not in actions or (is_full and "continuous" in actions)
        env = circle() if self.row.tabular else walk(continuous=continuous)
        self.env = wrappers.batched(with_memory(self.row, self.config, env), B)
        self._init = jax.jit(lambda key, config, worker: self.learner(config).init(key, worker))
        self.advance = jax.jit(self.run_updates)
        self.start = self.init(jax.random.key(0), self.config)
        self.end, self.metrics = self.advance(self.start, self.config)

    def init(self, key, config, worker=0):
        return self._init(key, config, worker)

    def agent(self, config, average=identity):
        return self.row.make(config, self.env.spec, average=average)

    def learner(self, config, average=identity):
        return make_learner(self.agent(config, average), self.env, T)

    def run_updates(self, state, config, average=identity):
        step = self.learner(config, average).step
        return jax.lax.scan(lambda state, _: step(state), state, length=NUM_UPDATES)


@pytest.fixture(
    scope="module",
    params=[
        (name, is_full) for name in LEARNERS for is_full in (False, True)
        if has_full_variant(name) or not is_full
    ],
    ids=run_id,
)  # fmt: skip
def agent_run(request):
    return AgentRun(*request.param)


def unpacked(tree):
    """Replaces the words of replay buffers by items, whose floats are compared as floats."""

    def items_of(x):
        if not isinstance(x, ring.Ring):
            return x
        has_workers = jax.tree.leaves(x.words)[0].ndim == 3
        contents = jax.vmap(ring.contents) if has_workers else ring.contents
        return jax.jit(contents)(x), x.cursor, x.size

    return jax.tree.map(items_of, tree, is_leaf=lambda x: isinstance(x, ring.Ring))


def assert_close(x, y, rtol=1e-5, atol=1e-5):
    """Asserts that two trees are equal within a tolerance; keys and integers exactly."""
    x, y = on_host(unpacked(x)), on_host(unpacked(y))
    assert jax.tree.structure(x) == jax.tree.structure(y)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(x), jax.tree.leaves(y), strict=True
    ):
        name = jax.tree_util.keystr(path)
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)


def on_host(tree):
    """Returns the arrays as those of NumPy, whose operations are not compiled; keys as words."""

    def fetch(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return jax.tree.map(fetch, tree)


def at(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def test_every_agent_has_a_case():
    assert CASES.keys() == AGENTS.keys()


def test_update_keeps_structure_shapes_and_dtypes(agent_run):
    def aval(x):
        return x.shape, x.dtype, getattr(x, "weak_type", False)

    assert jax.tree.structure(agent_run.end) == jax.tree.structure(agent_run.start)
    assert jax.tree.map(aval, agent_run.end) == jax.tree.map(aval, agent_run.start)
    agent_run.advance(agent_run.end, agent_run.config)
    assert agent_run.advance._cache_size() == 1  # the host's loop does not compile again
    assert int(agent_run.end.num_updates) == NUM_UPDATES


def test_update_changes_every_parameter(agent_run):
    before, after = params_of(agent_run.start.agent), params_of(agent_run.end.agent)
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        assert not np.array_equal(old, new), jax.tree_util.keystr(path)


def test_metrics_are_float32_scalars_with_the_common_names(agent_run):
    metrics = jax.eval_shape(agent_run.learner(agent_run.config).step, agent_run.start)[1]
    assert {"charts/episodic_return", "charts/episodic_length", "charts/reward"} < metrics.keys()
    assert any(name.startswith("losses/") for name in metrics)
    for name, metric in metrics.items():
        for leaf in metric if isinstance(metric, Mean) else (metric,):
            assert (leaf.shape, leaf.dtype) == ((), jnp.float32), name


def test_64_bit_types_do_not_enter_the_program(agent_run):
    """With `jax_enable_x64` the agent and its environment compute with 32 bits as without."""
    with jax.enable_x64(True):
        learner = agent_run.learner(agent_run.config)
        program = jax.make_jaxpr(learner.step)(agent_run.start)
        memory = agent_run.row.initial_memory(agent_run.config, agent_run.env.spec)
    assert not re.search(r"[fiu]64\[", str(program))
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(memory))


def test_the_same_key_gives_the_same_bits(agent_run):
    again = agent_run.init(jax.random.key(0), agent_run.config)
    assert bits(again) == bits(agent_run.start)
    repeated = agent_run.advance(again, agent_run.config)
    assert bits(repeated) == bits((agent_run.end, agent_run.metrics))
    other = agent_run.init(jax.random.key(1), agent_run.config)
    other = agent_run.advance(other, agent_run.config)[0]
    assert not np.array_equal(other.obs, agent_run.end.obs)
    assert bits(params_of(other.agent)) != bits(params_of(agent_run.end.agent))


def test_vmap_over_keys_and_floats_equals_separate_runs(agent_run):
    """One program runs many seeds, and several values of every float of the config."""
    config = agent_run.config
    floats = [name for name, kind in field_types(agent_run.row.config).items() if kind is float]
    assert "gamma" in floats and any(name.endswith("learning_rate") for name in floats)
    num_runs = len(floats) + 3  # the unchanged config, one per float, and two other keys
    values = {name: np.full(num_runs, getattr(config, name), np.float32) for name in floats}
    for i, name in enumerate(floats, start=1):
        values[name][i] *= 0.3
    keys = jax.vmap(jax.random.key)(np.array([0] * (len(floats) + 1) + [1, 2]))

    def run(key, swept):
        swept_config = dataclasses.replace(config, **swept)
        return agent_run.run_updates(agent_run.learner(swept_config).init(key), swept_config)

    case = CASES[agent_run.name]
    ends, metrics = on_host(jax.jit(jax.vmap(run))(keys, jax.tree.map(jnp.asarray, values)))
    for i in range(num_runs):
        swept = dataclasses.replace(config, **{name: float(values[name][i]) for name in floats})
        separate = agent_run.advance(agent_run.init(keys[i], swept), swept)
        assert_close(at((ends, metrics), i), separate, case.tolerance, case.tolerance)
    params = params_of(ends.agent)
    unread = {
        name for i, name in enumerate(floats, start=1) if bits(at(params, i)) == bits(at(params, 0))
    }
    assert unread == (case.unread_full if agent_run.is_full else case.unread)
    assert agent_run.advance._cache_size() == 1


def test_a_checkpoint_continues_bit_for_bit(agent_run, tmp_path):
    path = checkpoint.save(tmp_path, agent_run.end, {}, step=NUM_UPDATES)
    like = jax.eval_shape(agent_run.init, jax.random.key(0), agent_run.config)
    loaded, _ = checkpoint.load(path, like)
    assert bits(loaded) == bits(agent_run.end)
    continued = agent_run.advance(loaded, agent_run.config)
    assert bits(continued) == bits(agent_run.advance(agent_run.end, agent_run.config))
    assert agent_run.advance._cache_size() == 1


def scaled_rewards(env_state, scale):
    """Returns the state of the walk, also of one that carries a memory, with scaled rewards."""
    if hasattr(env_state, "memory"):
        return env_state._replace(env=scaled_rewards(env_state.env, scale))
    return env_state._replace(scale=jnp.full(B, scale, jnp.float32))


@pytest.mark.parametrize("scale", [1e15, -1e15, 1e-30, 0.0])
def test_extreme_rewards_give_no_nan(agent_run, scale):
    start = agent_run.start._replace(env=scaled_rewards(agent_run.start.env, scale))
    end, metrics = agent_run.advance(start, agent_run.config)
    largest = np.abs(metrics["charts/reward"]).max()
    assert largest > 1e13 if abs(scale) > 1 else largest < 1e-25
    finite = without_worker_fields(end.agent), metrics  # empty leaves of a sum tree are infinite
    for path, leaf in jax.tree_util.tree_leaves_with_path(finite):
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(end.agent))


@pytest.mark.parametrize("agent_run", WITHOUT_JIT, indirect=True, ids=run_id)
def test_update_without_jit_equals_update_with_jit(agent_run):
    known = field_types(agent_run.row.config)
    few = {name: number for name, number in FEW_ITERATIONS.items() if name in known}
    config = dataclasses.replace(agent_run.config, **few)
    agent, trajectory, key = agent_run.agent(config), make_trajectory(agent_run), jax.random.key(3)
    with jax.disable_jit():
        expected = agent.update(agent_run.end.agent, trajectory, key)
    assert_close(jax.jit(agent.update)(agent_run.end.agent, trajectory, key), expected, rtol=1e-4)


def make_trajectory(agent_run):
    """Returns random steps with actions and extras of the agent, without compiling a rollout."""
    agent, env = agent_run.agent(agent_run.config), agent_run.env

    def random_obs(like):
        if jnp.issubdtype(like.dtype, jnp.integer):
            return jax.random.randint(jax.random.key(5), (T, *like.shape), 0, env.spec.num_states)
        return jax.random.normal(jax.random.key(5), (T, *like.shape))

    obs = jax.tree.map(random_obs, agent_run.end.obs)
    noise = agent.sample_noise(jax.random.key(4), T)
    outputs = [agent.act(agent_run.end.agent, at(obs, t), at(noise, t)) for t in range(T)]
    action, extras = jax.tree.map(lambda *x: jnp.stack(x), *outputs)
    index = jnp.arange(T * B).reshape(T, B) % 5
    reward = jax.random.normal(jax.random.key(6), (T, B))
    next_obs = jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), obs)
    return Transition(obs, action, reward, index == 1, index == 3, next_obs, extras)


def without_worker_fields(state):
    """Returns an agent's state, also a wrapped one, without the fields of single workers."""
    empty = {name: () for name in WORKER_FIELDS if hasattr(state, name)}
    inner = {"agent": without_worker_fields(state.agent)} if hasattr(state, "agent") else {}
    return state._replace(**empty, **inner)


def test_pmap_over_devices_equals_vmap_over_workers(agent_run):
    """Workers are equal in all that they learn, and have their own environments."""
    if has_full_variant(agent_run.name) and not agent_run.is_full:
        pytest.skip("the full variant covers the plain one")
    assert jax.device_count() >= NUM_WORKERS
    config = agent_run.config
    starts = [agent_run.init(jax.random.key(0), config, i) for i in range(NUM_WORKERS)]
    starts = jax.jit(lambda *trees: jax.tree.map(lambda *x: jnp.stack(x), *trees))(*starts)
    average = partial(jax.lax.pmean, axis_name="workers")
    run_updates = partial(agent_run.run_updates, average=average)
    on_devices = jax.pmap(run_updates, "workers", in_axes=(0, None))(starts, config)
    vmapped = jax.jit(jax.vmap(run_updates, (0, None), axis_name="workers"))(starts, config)
    vmapped, on_devices = on_host(vmapped), on_host(on_devices)
    for ends, _ in (vmapped, on_devices):
        agent = without_worker_fields(ends.agent)
        for worker in range(1, NUM_WORKERS):
            assert bits(at(agent, worker)) == bits(at(agent, 0))
            experience = ends.obs, ends.episodes  # observations alone may coincide
            assert bits(at(experience, worker)) != bits(at(experience, 0))
    assert_close(on_devices, vmapped)
    params, averaged = params_of(agent_run.end.agent), params_of(at(vmapped[0].agent, 0))
    assert bits(params) != bits(averaged)
