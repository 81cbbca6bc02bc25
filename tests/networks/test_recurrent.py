"""Recurrent networks and agents, for each memory cell: unrolling, resets, bootstrap, training."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from probes import walk, with_memory

import rljax
from rljax import AGENTS
from rljax.agents.policy_gradient import trajectory_values
from rljax.envs import wrappers
from rljax.networks import (
    MEMORIES,
    MemoryCell,
    actor_critic_network,
    check_actor_critic,
    example_obs,
    recurrent,
)
from rljax.networks.recurrent import Unrolled, recurrent_actor_critic_network
from rljax.training.learner import make_learner, rollout
from rljax.types import EnvSpec, RecurrentObs

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B, H = 7, 3, 4
SPEC = EnvSpec(obs_shape=(3,), num_actions=2, num_envs=B)
WALK = walk().spec
CELLS = tuple(name for name, cell in MEMORIES.items() if cell is not None)
NETWORKS = {
    name: recurrent_actor_critic_network(SPEC, (5,), memory_size=H, memory=name) for name in CELLS
}
NETWORK = NETWORKS["gru"]


def random_sequence(network):
    rng = np.random.default_rng(0)
    obs, stored = rng.normal(size=(T, B, 3)), rng.normal(size=(T, B, network.memory_size))
    start = rng.random((T, B)) < 0.3
    start[0] = True
    return Unrolled(*(jnp.asarray(x, jnp.float32) for x in (obs, stored)), jnp.asarray(start))


def init(network, inputs):
    return network.init(jax.random.key(0), RecurrentObs(inputs.obs[0], inputs.memory[0]))


@pytest.mark.parametrize("name", CELLS)
def test_unrolling_equals_single_steps_from_each_start(name):
    network, inputs = NETWORKS[name], random_sequence(NETWORKS[name])
    params = init(network, inputs)
    apply = jax.jit(network.apply, static_argnames="method")
    policy, value = apply(params, inputs)
    memory = inputs.memory[0]
    for t in range(T):
        memory = jnp.where(inputs.start[t][:, None], inputs.memory[t], memory)
        obs = RecurrentObs(inputs.obs[t], memory)
        expected, expected_value = apply(params, obs)
        np.testing.assert_allclose(policy.logits[t], expected.logits, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(value[t], expected_value, rtol=1e-5, atol=1e-6)
        memory = apply(params, obs, method="next_memory")


@pytest.mark.parametrize("name", CELLS)
def test_gradients_flow_back_in_time_up_to_the_start_of_the_episode(name):
    start = jnp.zeros((T, B), bool).at[0].set(True).at[3, 1].set(True)
    network, inputs = NETWORKS[name], random_sequence(NETWORKS[name])._replace(start=start)
    params = init(network, inputs)

    @jax.jit
    def last_value(obs):
        return network.apply(params, inputs._replace(obs=obs))[1][-1].sum()

    has_gradient = np.abs(jax.grad(last_value)(inputs.obs)).sum(axis=-1) > 1e-9
    assert has_gradient[:, 0].all() and has_gradient[3:, 1].all() and not has_gradient[:3, 1].any()


AGENTS_WITH_MEMORY = ["ppo", "a2c", "a3c", "dppo"]


def recurrent_agent(name, **options):
    row = AGENTS[name]
    options = {
        "memory": "gru", "memory_size": H, "hidden_sizes": (5,), "num_envs": B,
        "normalize_obs": False, "normalize_reward": False,
    } | options  # fmt: skip
    config = row.config(num_steps=T, total_timesteps=T * B * 8, **options)
    return config, wrappers.batched(with_memory(row, config, walk()), B), row.make


@pytest.mark.parametrize("memory", CELLS)
def test_the_ratio_of_the_first_minibatch_is_one(memory):
    """Unrolling for training gives the memories of acting, across the ends of episodes."""
    config, env, make = recurrent_agent(
        "ppo", memory=memory, update_epochs=1, num_minibatches=1, clip_eps=1e-5, normalize_obs=True
    )
    learner = make_learner(make(config, env.spec), env, T)
    state = jax.jit(learner.init)(jax.random.key(0))
    step = jax.jit(learner.step)
    for _ in range(4):
        state, metrics = step(state)
        assert metrics["losses/clip_fraction"] == 0 and abs(metrics["losses/kl"]) < 3e-7
    assert float(state.agent.obs.num_samples) == 4 * T * B
    assert state.agent.obs.mean.shape == (3,)


@pytest.mark.parametrize(
    ("name", "memory"),
    [*((name, "gru") for name in AGENTS_WITH_MEMORY), ("a2c", "lstm"), ("ppo", "s5")],
)
def test_an_update_changes_all_parameters_of_a_recurrent_agent(name, memory):
    minibatches = {"update_epochs": 2, "num_minibatches": 3}
    extra = {"a2c": {}, "a3c": {"pull_period": 1}}.get(name, minibatches)
    config, env, make = recurrent_agent(name, memory=memory, ent_coef=0.01, **extra)
    agent = make(config, env.spec)
    learner = make_learner(agent, env, T)
    state = jax.jit(learner.init)(jax.random.key(0))
    after, _ = jax.jit(learner.step)(state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    before = jax.tree.leaves(state.agent.params)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(after.agent.params), before, strict=True
    ):
        assert not np.array_equal(x, y), jax.tree_util.keystr(path)
    action, next_memory = agent.greedy(after.agent, after.obs, jax.random.key(0))
    assert action.shape == (B,) and next_memory.shape == after.obs.memory.shape


def play(memory):
    """Returns the parameters and a rollout of a recurrent agent."""
    config, env, make = recurrent_agent("ppo", memory=memory, num_minibatches=1)
    agent = make(config, env.spec)

    @jax.jit
    def run(key):
        state = agent.init(key)
        env_state, obs = env.reset(key)
        return state.params, rollout(env, agent, state, env_state, obs, key, T)[2]

    return run(jax.random.key(1))


@pytest.mark.parametrize("name", CELLS)
def test_values_after_the_last_step_use_the_memory_before_the_reset(name):
    """Of episodes that are truncated, in the middle of a rollout, and at its end."""
    params, trajectory = play(name)
    network = recurrent_actor_critic_network(WALK, (5,), memory_size=H, memory=name)
    _, next_value = trajectory_values(network, params, trajectory)

    @jax.jit
    def step(memory, obs, next_obs):
        memory = network.apply(params, RecurrentObs(obs, memory), method="next_memory")
        return memory, network.apply(params, RecurrentObs(next_obs, memory))[1]

    ends, truncated = done(trajectory), np.asarray(trajectory.truncated)
    assert truncated[:-1].any() and (~ends[-1]).any()
    initial = jnp.zeros((B, network.memory_size))
    memory = initial
    for t in range(T):
        memory, expected = step(memory, trajectory.obs.obs[t], trajectory.next_obs.obs[t])
        counts = ~np.asarray(trajectory.terminated[t])
        np.testing.assert_allclose(next_value[t][counts], expected[counts], rtol=1e-4, atol=1e-5)
        memory = jnp.where(ends[t][:, None], initial, memory)


def done(trajectory):
    return np.asarray(trajectory.terminated | trajectory.truncated)


def test_training_inputs_are_whole_sequences():
    _, trajectory = play("gru")
    sequences = recurrent.sequences(NETWORK, SPEC)
    inputs = sequences.training_inputs(trajectory)
    num_items, take = sequences.split((inputs, trajectory.reward))
    part, reward = take(jnp.array([2, 0]))
    assert num_items == B and reward.shape == (T, 2) and part.memory.shape == (T, 2, H)
    np.testing.assert_array_equal(part.obs[:, 1], trajectory.obs.obs[:, 0])
    assert inputs.start[0].all() and done(trajectory)[:-1].any()
    np.testing.assert_array_equal(inputs.start[1:], done(trajectory)[:-1])


def test_a_network_without_memory_size_is_memoryless():
    sequences = recurrent.sequences(actor_critic_network(SPEC, (4,)), SPEC)
    batch = jnp.arange(T * B).reshape(T, B)
    num_items, take = sequences.split(batch)
    assert num_items == T * B and sequences.example_obs.shape == (1, 3)
    np.testing.assert_array_equal(take(jnp.array([0, T * B - 1])), [0, T * B - 1])
    assert sequences.with_memory({}, None, "action") == "action"


def test_minibatches_hold_whole_sequences():
    config, *_ = recurrent_agent("ppo", num_minibatches=3)
    with pytest.raises(ValueError, match=r"`num_minibatches` is 2, .* num_envs = 3"):
        dataclasses.replace(config, num_minibatches=2, num_steps=8)


def test_the_network_must_have_the_memory_of_the_config():
    config, _, make = recurrent_agent("ppo", num_minibatches=1)
    assert make(config, SPEC, network=NETWORK)
    with pytest.raises(ValueError, match=f"hidden state of size {H}, .* one of size {H + 1}: set"):
        make(dataclasses.replace(config, memory_size=H + 1), SPEC, network=NETWORK)
    with pytest.raises(ValueError, match=f"hidden state of size {H}, .* one of size 0: set"):
        make(dataclasses.replace(config, memory="none"), SPEC, network=NETWORK)
    with pytest.raises(ValueError, match="hidden state of size 0"):
        make(config, SPEC, network=actor_critic_network(SPEC, (4,)))
    row = AGENTS["trpo"]
    with pytest.raises(ValueError, match="a2c, a3c, ppo and dppo have these options"):
        row.make(row.config(), SPEC, network=NETWORK)


@pytest.mark.parametrize("name", CELLS)
def test_parameters_do_not_depend_on_the_batch_size(name):
    network = NETWORKS[name]
    vectors = [
        ravel_pytree(network.init(jax.random.key(0), recurrent.sequences(network, spec)[0]))[0]
        for spec in (SPEC, SPEC._replace(num_envs=1))
    ]
    np.testing.assert_array_equal(*vectors)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(
    "obs_shape", [(10, 10, 3), {"image": (4, 4, 2), "speed": ()}], ids=["image", "tree"]
)
def test_observations_may_be_images_and_trees(name, obs_shape):
    spec = EnvSpec(obs_shape, num_actions=2)
    network = recurrent_actor_critic_network(spec, (5,), memory_size=H, memory=name)
    one_step = example_obs(spec, (T, B), network.memory_size)
    inputs = Unrolled(*one_step, jnp.ones((T, B), bool))
    params = jax.eval_shape(network.init, jax.random.key(0), one_step)
    policy, value = jax.eval_shape(network.apply, params, inputs)
    assert policy.logits.shape == (T, B, 2) and value.shape == (T, B)
    check_actor_critic(network, spec)


@pytest.mark.parametrize("memory", CELLS)
def test_64_bit_types_do_not_enter_the_program_of_a_recurrent_agent(memory):
    config, env, make = recurrent_agent("ppo", memory=memory, num_minibatches=1)
    learner = make_learner(make(config, env.spec), env, T)
    state = jax.eval_shape(learner.init, jax.random.key(0))
    with jax.enable_x64(True):
        program = str(jax.make_jaxpr(learner.step)(state))
    assert not re.search(r"[fiu]64\[|c128\[", program) and "f32[" in program


def test_an_unknown_memory_is_named():
    with pytest.raises(ValueError, match="`memory` is 'grux', but .* one of gru, lstm, s5"):
        recurrent_actor_critic_network(SPEC, memory="grux")


class Grows(MemoryCell):
    def step(self, memory, inputs):
        return jnp.concatenate([memory, inputs], axis=-1)


class Sum(MemoryCell):
    """An own cell without parameters: the sum of the features since the start of the episode."""

    def step(self, memory, inputs):
        return memory + inputs


def test_an_own_memory_is_an_option(monkeypatch):
    monkeypatch.setitem(MEMORIES, "sum", Sum)
    monkeypatch.setitem(MEMORIES, "grows", Grows)
    config, env, make = recurrent_agent("a2c", memory="sum", hidden_sizes=(H,))
    learner = make_learner(make(config, env.spec), env, T)
    state = jax.jit(lambda key: learner.step(learner.init(key)))(jax.random.key(0))[0]
    assert state.obs.memory.shape == (B, H) and "sum" not in state.agent.params["params"]
    with pytest.raises(ValueError, match=r"next memory has shape \(1, 9\), but .* shape \(1, 4\)"):
        make(dataclasses.replace(config, memory="grows", hidden_sizes=(5,)), env.spec)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="`memory` is 'sum', but it must be one of none, gru, lst"):
        recurrent_agent("a2c", memory="sum")


@pytest.mark.slow
@pytest.mark.parametrize("memory", CELLS)
def test_every_memory_solves_memory_chain(memory):
    """The first observation shows the rewarded action, which the last step asks for."""
    run = rljax.train(
        "ppo", "MemoryChain-bsuite", memory=memory, num_seeds=8, total_timesteps=50_000,
        num_steps=64, learning_rate=2e-3, num_minibatches=1, normalize_obs=False,
        normalize_reward=False, progress=False,
    )  # fmt: skip
    solved = (run.evaluation["returns"].mean(axis=-1) > 0.99).sum()
    assert solved >= 7
