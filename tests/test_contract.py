"""The exam that every row of `AGENTS` sits: what makes an agent one that the rest can run."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import ARM, CONSTANT, DELAYED, MATCH, OBSERVED, bits, circle, probe, walk

from rljax import networks
from rljax.agents import AGENTS
from rljax.config import field_types
from rljax.envs import wrappers
from rljax.experiment import checkpoint
from rljax.networks import action_values
from rljax.training.learner import make_learner, train
from rljax.types import Mean, Transition, identity, params_of

pytestmark = pytest.mark.usefixtures("quick_compiles")

B, T, NUM_UPDATES = 2, 6, 3
SMALL = {
    "num_envs": B, "num_steps": T, "total_timesteps": B * T * 8, "hidden_sizes": (4,),
    "learning_rate": 0.01, "ent_coef": 0.01, "update_epochs": 2, "num_minibatches": 2,
    "clip_eps": 0.01, "target_kl": 3e-3,
}  # fmt: skip
EVERYTHING = {
    "normalize_obs": True, "normalize_reward": True, "normalize_advantage": True, "surrogate": "kl",
    "clip_value": True,
    "double": True, "dueling": True, "prioritized": True, "n_step": 3,
}  # fmt: skip
# options of one agent alone, over those above
OPTIONS: dict[str, dict[str, Any]] = {
    name: {"eps_start": 0.9, "eps_end": 0.4, "initial_value": 0.5, "bonus": 0.1, "n_step": 3}
    | {"priority_threshold": 0.5}
    for name, row in AGENTS.items() if row.tabular
}  # fmt: skip
OPTIONS |= {"a3c": {"pull_period": 2}, "impala": {"pull_period": 2}}
OPTIONS["dppo"] = {"surrogate": "hinge", "target_kl": 2e-4}  # so small that the hinge is felt
_REPLAY = {
    "buffer_size": 40, "batch_size": 8, "learning_starts": 12, "train_frequency": 5,
    "gradient_steps": 2, "target_update_interval": 10, "eps_end": 0.5,
    "exploration_fraction": 0.3, "max_grad_norm": 0.1, "num_atoms": 7, "v_min": -2.0, "v_max": 3.0,
    "num_quantiles": 6,
}  # fmt: skip
OPTIONS |= {name: _REPLAY for name in ("dqn", "c51", "qr_dqn", "rainbow")}
OPTIONS |= {
    "munchausen": _REPLAY | {"double": False, "n_step": 1},
    "pqn": {"eps_end": 0.5, "exploration_fraction": 0.3, "max_grad_norm": 0.1},
}
# what a run of this kind does not read: its value must change nothing
UNREAD = {("ppo", False): {"target_kl"}, ("dppo", False): {"clip_eps"}}
_PRIORITIES = {"priority_exponent", "importance_exponent"}
_EPSILON = {"eps_start", "eps_end", "exploration_fraction"}
UNREAD |= {(name, False): _PRIORITIES for name in ("dqn", "c51", "qr_dqn", "munchausen")}
UNREAD |= {("rainbow", everything): _EPSILON for everything in (False, True)}
# what a worker's agent does not share with the others: it is of the worker's own experience
OWN = ("running_return", "replay", "episode", "model", "waiting", "time")


class Exam:
    """An agent on a small world, and its programs, each compiled once."""

    def __init__(self, name, everything):
        self.name, self.everything, self.row = name, everything, AGENTS[name]
        options = SMALL | (EVERYTHING if everything else {}) | OPTIONS.get(name, {})
        known = field_types(self.row.config)
        self.config = self.row.config(**{k: v for k, v in options.items() if k in known})
        actions = self.row.actions
        continuous = "discrete" not in actions or (everything and "continuous" in actions)
        world = circle() if self.row.tabular else walk(continuous=continuous)
        self.env = wrappers.batched(self.row.wrap(self.config, world), B)
        self.begin = jax.jit(lambda *args: self.learner(args[1]).init(args[0], *args[2:]))
        self.go = jax.jit(self.advance)
        self.start = self.begin(jax.random.key(0), self.config)
        self.end, self.metrics = self.go(self.start, self.config)

    def agent(self, config, average=identity):
        return self.row.make(config, self.env.spec, average=average)

    def learner(self, config, average=identity):
        return make_learner(self.agent(config, average), self.env, T)

    def advance(self, state, config, average=identity):
        step = self.learner(config, average).step
        return jax.lax.scan(lambda state, _: step(state), state, length=NUM_UPDATES)


# they know the model and learn nothing from what they live through: test_planning.py is their exam
PLANNERS = {"value_iteration", "policy_iteration"}
KINDS = [
    (name, everything) for name, row in AGENTS.items() for everything in (False, True)
    if name not in PLANNERS
    if everything or EVERYTHING.keys() & field_types(row.config).keys()
]  # fmt: skip


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}{'+' * kind[1]}")
def exam(request):
    return Exam(*request.param)


def close(x, y, rtol=1e-5, atol=1e-5):
    """Equal within a tolerance; keys and whole numbers exactly."""
    assert jax.tree.structure(x) == jax.tree.structure(y)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(x), jax.tree.leaves(y), strict=True
    ):
        where = jax.tree_util.keystr(path)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=where)
        else:
            np.testing.assert_array_equal(a, b, err_msg=where)


def at(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def test_an_update_keeps_structure_shapes_and_types(exam):
    def kind(x):
        return x.shape, x.dtype, getattr(x, "weak_type", False)

    assert jax.tree.structure(exam.end) == jax.tree.structure(exam.start)
    assert jax.tree.map(kind, exam.end) == jax.tree.map(kind, exam.start)
    exam.go(exam.end, exam.config)
    assert exam.go._cache_size() == 1  # so that a loop on the host does not compile again
    assert int(exam.end.num_updates) == NUM_UPDATES


def test_it_learns_at_all(exam):
    before, after = params_of(exam.start.agent), params_of(exam.end.agent)
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        assert not np.array_equal(old, new), jax.tree_util.keystr(path)


def test_metrics_are_scalars_with_the_common_names(exam):
    metrics = jax.eval_shape(exam.learner(exam.config).step, exam.start)[1]
    assert {"charts/episodic_return", "charts/episodic_length", "charts/reward"} < metrics.keys()
    assert any(name.startswith("losses/") for name in metrics)
    for name, metric in metrics.items():
        for leaf in metric if isinstance(metric, Mean) else (metric,):
            assert (leaf.shape, leaf.dtype) == ((), jnp.float32), name


def test_the_same_key_gives_the_same_bits(exam):
    again = exam.begin(jax.random.key(0), exam.config)
    assert bits(again) == bits(exam.start)
    assert bits(exam.go(again, exam.config)) == bits((exam.end, exam.metrics))
    other = exam.go(exam.begin(jax.random.key(1), exam.config), exam.config)[0]
    assert not np.array_equal(other.obs, exam.end.obs)
    assert bits(params_of(other.agent)) != bits(params_of(exam.end.agent))


def test_vmap_over_keys_and_over_every_float_equals_separate_runs(exam):
    """One program runs many seeds, and many values of every float of the config."""
    floats = [name for name, kind in field_types(exam.row.config).items() if kind is float]
    assert {"gamma", "learning_rate"} <= set(floats)
    num_runs = len(floats) + 3  # the first as it is, one a float, and two of other keys
    values = {name: np.full(num_runs, getattr(exam.config, name), np.float32) for name in floats}
    for i, name in enumerate(floats, start=1):
        values[name][i] *= 0.3
    keys = jax.vmap(jax.random.key)(np.array([0] * (len(floats) + 1) + [1, 2]))

    def run(key, swept):
        config = dataclasses.replace(exam.config, **swept)
        return exam.advance(exam.learner(config).init(key), config)

    ends, metrics = jax.jit(jax.vmap(run))(keys, jax.tree.map(jnp.asarray, values))
    for i in range(num_runs):
        config = dataclasses.replace(
            exam.config, **{name: float(values[name][i]) for name in floats}
        )
        close(at((ends, metrics), i), exam.go(exam.begin(keys[i], config), config))
    params = params_of(ends.agent)
    same = {
        name for i, name in enumerate(floats, start=1) if bits(at(params, i)) == bits(at(params, 0))
    }
    assert same == UNREAD.get((exam.name, exam.everything), set())
    assert exam.go._cache_size() == 1


def test_a_checkpoint_continues_bit_for_bit(exam, tmp_path):
    path = checkpoint.save(tmp_path, exam.end, {}, step=NUM_UPDATES)
    like = jax.eval_shape(exam.begin, jax.random.key(0), exam.config)
    loaded, _ = checkpoint.load(path, like)
    assert bits(loaded) == bits(exam.end)
    assert bits(exam.go(loaded, exam.config)) == bits(exam.go(exam.end, exam.config))
    assert exam.go._cache_size() == 1


@pytest.mark.parametrize("scale", [1e15, -1e15, 1e-30, 0.0])
def test_extreme_rewards_make_no_nan(exam, scale):
    env_state = exam.start.env._replace(scale=jnp.full(B, scale, jnp.float32))
    end, metrics = exam.go(exam.start._replace(env=env_state), exam.config)
    largest = np.abs(metrics["charts/reward"]).max()
    assert largest > 1e13 if abs(scale) > 1 else largest < 1e-25
    finite = without_own(end.agent), metrics  # a sum tree has infinities where it holds nothing
    for path, leaf in jax.tree_util.tree_leaves_with_path(finite):
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(end.agent))


def test_compiling_changes_nothing(exam):
    """Against every operation by itself, as `jax.disable_jit` runs them."""
    if (exam.name, True) in KINDS and not exam.everything:
        pytest.skip("what is compiled here is compiled with everything on")
    names = {"update_epochs", "num_minibatches"} & field_types(exam.row.config).keys()
    config = dataclasses.replace(exam.config, **dict.fromkeys(names, 1))
    agent, trajectory, key = exam.agent(config), make_trajectory(exam), jax.random.key(3)
    with jax.disable_jit():
        expected = agent.update(exam.end.agent, trajectory, key)
    close(jax.jit(agent.update)(exam.end.agent, trajectory, key), expected, rtol=1e-4)


def make_trajectory(exam):
    """Steps that the agent might have taken, made without compiling a rollout."""
    agent, env = exam.agent(exam.config), exam.env

    def look(like):
        if jnp.issubdtype(like.dtype, jnp.integer):
            return jax.random.randint(jax.random.key(5), (T, *like.shape), 0, env.spec.num_states)
        return jax.random.normal(jax.random.key(5), (T, *like.shape))

    obs = jax.tree.map(look, exam.end.obs)
    acted = [agent.act(exam.end.agent, at(obs, t), jax.random.key(t)) for t in range(T)]
    action, extras = jax.tree.map(lambda *x: jnp.stack(x), *acted)
    end = jnp.arange(T * B).reshape(T, B) % 5
    reward = jax.random.normal(jax.random.key(6), (T, B))
    next_obs = jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), obs)
    return Transition(obs, action, reward, end == 1, end == 3, next_obs, extras)


def without_own(state):
    """An agent's state, less what each worker has for itself, also within wrappers."""
    left = {name: () for name in OWN if hasattr(state, name)}
    inner = {"agent": without_own(state.agent)} if hasattr(state, "agent") else {}
    return state._replace(**left, **inner)


def test_pmap_over_devices_equals_vmap_over_workers(exam):
    """`average` is all there is to parallelism: workers share what they learn, nothing else."""
    if not exam.everything:
        pytest.skip("what is averaged here is averaged with everything on")
    num_workers = 4
    assert jax.device_count() >= num_workers
    starts = [exam.begin(jax.random.key(0), exam.config, i) for i in range(num_workers)]
    starts = jax.tree.map(lambda *x: jnp.stack(x), *starts)
    advance = partial(exam.advance, average=partial(jax.lax.pmean, axis_name="workers"))
    each_device = jax.pmap(advance, "workers", in_axes=(0, None))(starts, exam.config)
    one_device = jax.jit(jax.vmap(advance, (0, None), axis_name="workers"))(starts, exam.config)
    for ends, _ in (one_device, each_device):
        agent = without_own(ends.agent)
        for worker in range(1, num_workers):
            assert bits(at(agent, worker)) == bits(at(agent, 0))
            lived = ends.obs, ends.episodes  # states alone may be the same by chance
            assert bits(at(lived, worker)) != bits(at(lived, 0))
    close(each_device, one_device)
    assert bits(params_of(exam.end.agent)) != bits(params_of(at(one_device[0].agent, 0)))


# The worlds: each kind with a length, ended by termination or by a time limit.
WORLDS = {
    "one action": (CONSTANT, 1, True),
    "observed": (OBSERVED, 1, True),
    "delayed": (DELAYED, 2, True),
    "arm": (ARM, 1, True),
    "match": (MATCH, 1, True),
    "limit 8": (CONSTANT, 8, False),
    "limit 40": (CONSTANT, 40, False),
    "death at 8": (CONSTANT, 8, True),
}
GAMMA, GAE_LAMBDA = 0.9, 0.95


def gae_of_a_death():
    """The fixed point of GAE's targets where the last step of eight has no value behind it."""
    value = 0.0
    for _ in range(200):
        advantage, advantages = 0.0, []
        for left in range(1, 9):
            delta = 1.0 + (GAMMA * value if left > 1 else 0.0) - value
            advantage = delta + GAMMA * GAE_LAMBDA * advantage
            advantages.append(advantage)
        value += np.mean(advantages)
    return value


def n_step_of_a_death(n):
    """The mean return of n rewards over the eight steps, of which those left of it bootstrap."""
    left = np.arange(1, 9)
    rewards = (1 - GAMMA ** np.minimum(left, n)) / (1 - GAMMA)
    return rewards.mean() / (1 - GAMMA**n * (left > n).mean())


class Family(NamedTuple):
    """Agents whose knowledge is read in the same way."""

    options: dict[str, Any]
    network: Callable[..., Any]  # (spec) -> the piece `network=`, or None
    # (network, params, obs[N]) -> value[N], chance of action 1 [N] or None: it only predicts
    read: Callable[..., Any]
    # the value of a world that ends after eight rewards of 1; None: a model without chance cannot
    # tell, as it is not observed which step is the last
    death: Callable[[], float] | None


def read_policy(network, params, obs):
    policy, value = network.apply(params, obs)
    return value, policy.probs[:, 1]


def read_actions(network, params, obs):
    del network
    q = params.q[obs]
    return q.max(axis=-1), (q[:, 1] > q[:, 0]).astype(jnp.float32)


def read_states(network, params, obs):
    del network
    return params.v[obs], None


TABLE = {"total_timesteps": 40_000, "learning_rate": 0.01, "n_step": 4, "trace_lambda": GAE_LAMBDA}
ONE_STEP = TABLE | {"n_step": 1, "trace_lambda": 0.0}  # where more is not of its own actions
TRACED = TABLE | {"trace": "accumulating"}


def of_table(options, read, death):
    return Family(options, lambda spec: None, read, death)


POLICY = {
    "num_envs": 4, "num_steps": 16, "total_timesteps": 4 * 16 * 400, "learning_rate": 0.02,
    "update_epochs": 2, "num_minibatches": 1, "max_grad_norm": 10.0,
}  # fmt: skip


def of_policy(death):
    return Family(
        POLICY, lambda spec: networks.actor_critic_network(spec, (8,), "tanh"), read_policy, death
    )


FAMILIES = {
    "policy": of_policy(gae_of_a_death),
    "policy, one step": of_policy(lambda: n_step_of_a_death(1)),
    "policy, whole episodes": of_policy(lambda: n_step_of_a_death(8)),
    "one step": of_table(ONE_STEP, read_actions, lambda: n_step_of_a_death(1)),
    "n steps": of_table(TABLE, read_actions, lambda: n_step_of_a_death(4)),
    "traces": of_table(TRACED, read_actions, gae_of_a_death),
    "model": of_table(TABLE, read_actions, None),
    "one step of states": of_table(TABLE, read_states, lambda: n_step_of_a_death(1)),
    "n steps of states": of_table(TABLE, read_states, lambda: n_step_of_a_death(4)),
    "traces of states": of_table(TRACED, read_states, gae_of_a_death),
}  # fmt: skip


def read_values(values_of):
    """Reads the network of a value-based agent by what `values_of` makes of its outputs."""

    def read(network, params, obs):
        values = values_of(network.apply(params, obs))
        return values.max(axis=-1), (values.argmax(axis=-1) == 1).astype(jnp.float32)

    return read


VALUES = {
    "num_envs": 4, "num_steps": 8, "total_timesteps": 4 * 8 * 1200, "learning_rate": 0.01,
    "anneal_lr": True, "buffer_size": 2048, "batch_size": 128, "learning_starts": 256,
    "train_frequency": 8, "target_update_interval": 64, "trace_lambda": GAE_LAMBDA, "v_min": -2.0,
    "v_max": 12.0, "num_atoms": 29, "num_quantiles": 40, "kappa": 0.0, "update_epochs": 2,
    "num_minibatches": 1, "exploration_fraction": 0.5, "eps_end": 0.2,
}  # fmt: skip


def quantities(num_outputs, layer_norm=False):
    """The network of a value-based agent on the probes."""
    options = {"num_outputs": num_outputs, "layer_norm": layer_norm}
    return lambda spec: action_values.q_network(spec, (8,), "tanh", **options)


def mean_atom(logits):
    atoms = jnp.linspace(VALUES["v_min"], VALUES["v_max"], VALUES["num_atoms"])
    return (jax.nn.softmax(logits) * atoms[None, None]).sum(axis=-1)


def quantiles_of_a_death():
    """The mean of so many quantiles, as they are where one of eight steps ends with its reward."""
    count = VALUES["num_quantiles"]
    midpoints, returns = (np.arange(count) + 0.5) / count, np.zeros(count)
    for _ in range(500):
        goals = np.concatenate([np.ones(count), *[1 + GAMMA * returns] * 7])
        returns = np.quantile(goals, midpoints, method="inverted_cdf")
    return returns.mean()


FAMILIES |= {
    "value": Family(
        VALUES, quantities(0), read_values(identity), lambda: n_step_of_a_death(1)
    ),
    "lambda value": Family(
        VALUES, quantities(0, True), read_values(identity), gae_of_a_death
    ),
    "atoms": Family(
        VALUES, quantities(VALUES["num_atoms"]), read_values(mean_atom),
        lambda: n_step_of_a_death(1),
    ),
    "atoms of three rewards": Family(
        VALUES, quantities(VALUES["num_atoms"]), read_values(mean_atom),
        lambda: n_step_of_a_death(3),
    ),
    "quantiles": Family(
        VALUES | {"batch_size": 32}, quantities(VALUES["num_quantiles"]),
        read_values(lambda x: x.mean(axis=-1)),
        quantiles_of_a_death,
    ),
}  # fmt: skip
FAMILY = {
    "ppo": "policy", "a2c": "policy", "a3c": "policy", "trpo": "policy", "dppo": "policy",
    "reinforce": "policy, whole episodes", "impala": "policy, whole episodes",
    "actor_critic": "policy, one step", "q_learning": "one step", "double_q_learning": "one step",
    "sarsa": "one step", "expected_sarsa": "one step", "n_step_sarsa": "n steps",
    "tree_backup": "one step", "sarsa_lambda": "traces", "q_lambda": "one step",
    "td": "one step of states", "n_step_td": "n steps of states", "td_lambda": "traces of states",
    "true_online_td_lambda": "traces of states", "lambda_return": "traces of states",
    "dyna_q": "model", "dyna_q_plus": "model", "prioritized_sweeping": "model"}  # fmt: skip

FAMILY |= {
    "dqn": "value", "munchausen": "value", "pqn": "lambda value", "c51": "atoms",
    "rainbow": "atoms of three rewards", "qr_dqn": "quantiles",
}  # fmt: skip


def test_every_agent_sits_the_whole_exam():
    assert FAMILY.keys() | PLANNERS == AGENTS.keys()


@pytest.fixture(scope="module", params=list(FAMILY))
def learned(request):
    """What an agent has learned in every world: `(value(obs), probability of action 1)`."""
    row, family = AGENTS[request.param], FAMILIES[FAMILY[request.param]]
    options = {"gamma": GAMMA, "gae_lambda": GAE_LAMBDA} | family.options
    known = field_types(row.config)
    config = row.config(**{k: v for k, v in options.items() if k in known})

    def run(kind, length, terminates):
        world = probe(kind, length, terminates, numbered=row.tabular)
        env = wrappers.batched(row.wrap(config, world), config.num_envs)
        network = family.network(env.spec)
        pieces = {} if network is None else {"network": network}
        agent = row.make(config, env.spec, **pieces)
        learner = make_learner(agent, env, config.num_steps)
        state, _ = train(learner, jax.random.key(0), config.num_updates)
        obs = jnp.arange(3) if row.tabular else jnp.array([[-1.0], [0.0], [1.0]])
        return family.read(network, params_of(state.agent), obs)

    kinds = [jnp.array(column) for column in zip(*WORLDS.values(), strict=True)]
    values, chances = jax.jit(jax.vmap(run))(*kinds)
    seen = {name: at((values, chances), i) for i, name in enumerate(WORLDS)}
    return seen, family


def test_probe_values(learned):
    """The value of the only, of the observed, and of the discounted reward."""
    seen, _ = learned
    np.testing.assert_allclose(seen["one action"][0][1], 1.0, atol=0.02)
    np.testing.assert_allclose(seen["observed"][0][jnp.array([0, 2])], [-1.0, 1.0], atol=0.05)
    np.testing.assert_allclose(seen["delayed"][0][1:], [GAMMA, 1.0], atol=0.05)


def test_probe_policies(learned):
    """The best arm; and the action that what is seen asks for."""
    seen, _ = learned
    if seen["arm"][1] is None:
        pytest.skip("it predicts the values of a given policy")
    assert seen["arm"][1][1] > 0.95
    assert seen["match"][1][0] < 0.05
    assert seen["match"][1][2] > 0.95


@pytest.mark.parametrize("world", ["limit 8", "limit 40"])
def test_a_time_limit_is_not_a_death(learned, world):
    np.testing.assert_allclose(learned[0][world][0][1], 1 / (1 - GAMMA), rtol=0.02)


def test_a_death_is_a_death(learned):
    seen, family = learned
    if family.death is None:
        pytest.skip("its model is of one end alone")
    value = family.death()
    assert value < 6
    np.testing.assert_allclose(seen["death at 8"][0][1], value, rtol=0.03)
