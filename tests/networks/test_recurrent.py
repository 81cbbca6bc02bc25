"""Recurrent networks: the GRU against flax's, unrolling against single steps, and training."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from probes import walk, with_memory

from rljax import AGENTS
from rljax.envs import wrappers
from rljax.networks import actor_critic_network, recurrent
from rljax.networks.recurrent import GRU, Unrolled, recurrent_actor_critic_network
from rljax.training.learner import make_learner, rollout
from rljax.types import EnvSpec, RecurrentObs

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B, H = 7, 3, 4
SPEC = EnvSpec(obs_shape=(3,), num_actions=2, num_envs=B)
NETWORK = recurrent_actor_critic_network(SPEC, (5,), "tanh", "auto", "free", H)


class OneStep(nn.Module):
    @nn.compact
    def __call__(self, memory, x):
        gru = GRU(H, name="gru")
        return gru.step(memory, gru.gates(x))


def test_the_gru_equals_that_of_flax():
    memory, x = (
        jax.random.normal(jax.random.key(0), (B, H)),
        jax.random.normal(jax.random.key(1), (B, 3)),
    )
    params = OneStep().init(jax.random.key(2), memory, x)
    ours = params["params"]["gru"]
    biases = jax.random.normal(jax.random.key(3), (3 * H + H,))
    ours = {**ours, "bias": biases[:H], "of_input": {**ours["of_input"], "bias": biases[H:]}}
    theirs = {}
    for i, gate in enumerate("rzn"):
        part = slice(i * H, (i + 1) * H)
        theirs[f"i{gate}"] = {k: v[..., part] for k, v in ours["of_input"].items()}
        theirs[f"h{gate}"] = {"kernel": ours["of_memory"][:, part]}
    theirs["hn"]["bias"] = ours["bias"]
    expected, _ = nn.GRUCell(H).apply({"params": theirs}, memory, x)
    np.testing.assert_allclose(
        OneStep().apply({"params": {"gru": ours}}, memory, x), expected, rtol=1e-5, atol=1e-6
    )
    for i in range(3):  # the recurrent kernel of each gate is orthogonal
        kernel = params["params"]["gru"]["of_memory"][:, i * H : (i + 1) * H]
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(H), atol=1e-5)


def random_sequence():
    rng = np.random.default_rng(0)
    obs, stored = rng.normal(size=(T, B, 3)), rng.normal(size=(T, B, H))
    start = rng.random((T, B)) < 0.3
    start[0] = True
    return Unrolled(*(jnp.asarray(x, jnp.float32) for x in (obs, stored)), jnp.asarray(start))


def init(inputs):
    return NETWORK.init(jax.random.key(0), RecurrentObs(inputs.obs[0], inputs.memory[0]))


def test_unrolling_equals_single_steps_from_each_start():
    inputs = random_sequence()
    params = init(inputs)
    policy, value = NETWORK.apply(params, inputs)
    memory = inputs.memory[0]
    for t in range(T):
        memory = jnp.where(inputs.start[t][:, None], inputs.memory[t], memory)
        obs = RecurrentObs(inputs.obs[t], memory)
        expected, expected_value = NETWORK.apply(params, obs)
        np.testing.assert_allclose(policy.logits[t], expected.logits, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(value[t], expected_value, rtol=1e-5, atol=1e-6)
        memory = NETWORK.apply(params, obs, method="next_memory")


def test_gradients_flow_back_in_time_up_to_the_start_of_the_episode():
    start = jnp.zeros((T, B), bool).at[0].set(True).at[3, 1].set(True)
    inputs = random_sequence()._replace(start=start)
    params = init(inputs)

    def last_value(obs):
        return NETWORK.apply(params, inputs._replace(obs=obs))[1][-1].sum()

    has_gradient = np.abs(jax.grad(last_value)(inputs.obs)).sum(axis=-1) > 1e-9
    assert has_gradient[:, 0].all() and has_gradient[3:, 1].all() and not has_gradient[:3, 1].any()


def recurrent_agent(name, **options):
    row = AGENTS[name]
    options = {"memory": "gru", "memory_size": H, "hidden_sizes": (5,), "num_envs": B} | options
    config = row.config(num_steps=T, total_timesteps=T * B * 8, **options)
    return config, wrappers.batched(with_memory(row, config, walk()), B), row.make


def test_the_ratio_of_the_first_minibatch_is_one():
    """Unrolling for training gives the hidden states of acting, across the ends of episodes."""
    config, env, make = recurrent_agent(
        "ppo", update_epochs=1, num_minibatches=1, clip_eps=1e-5, normalize_obs=True
    )
    learner = make_learner(make(config, env.spec), env, T)
    state = jax.jit(learner.init)(jax.random.key(0))
    step = jax.jit(learner.step)
    for _ in range(4):
        state, metrics = step(state)
        assert metrics["losses/clip_fraction"] == 0 and abs(metrics["losses/kl"]) < 1e-7
    assert float(state.agent.obs.num_samples) == 4 * T * B
    assert state.agent.obs.mean.shape == (3,)


@pytest.mark.parametrize("name", ["ppo", "a2c", "a3c", "dppo"])
def test_an_update_changes_all_parameters_of_a_recurrent_agent(name):
    minibatches = {"update_epochs": 2, "num_minibatches": 3}
    extra = {"a2c": {}, "a3c": {"pull_period": 1}}.get(name, minibatches)
    config, env, make = recurrent_agent(name, ent_coef=0.01, **extra)
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
    action, memory = agent.greedy(after.agent, after.obs, jax.random.key(0))
    assert action.shape == (B,) and memory.shape == (B, H)


def test_training_inputs_are_whole_sequences():
    config, env, make = recurrent_agent("ppo", num_minibatches=1)
    agent = make(config, env.spec)

    @jax.jit
    def play(key):
        env_state, obs = env.reset(key)
        return rollout(env, agent, agent.init(key), env_state, obs, key, T)[2]

    trajectory = play(jax.random.key(1))
    sequences = recurrent.sequences(NETWORK, SPEC)
    inputs = sequences.training_inputs(trajectory)
    num_items, take = sequences.split((inputs, trajectory.reward))
    part, reward = take(jnp.array([2, 0]))
    assert num_items == B and reward.shape == (T, 2) and part.memory.shape == (T, 2, H)
    np.testing.assert_array_equal(part.obs[:, 1], trajectory.obs.obs[:, 0])
    done = trajectory.terminated | trajectory.truncated
    assert inputs.start[0].all() and done[:-1].any()
    np.testing.assert_array_equal(inputs.start[1:], done[:-1])


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


def test_parameters_do_not_depend_on_the_batch_size():
    vectors = [
        ravel_pytree(NETWORK.init(jax.random.key(0), recurrent.sequences(NETWORK, spec)[0]))[0]
        for spec in (SPEC, SPEC._replace(num_envs=1))
    ]
    np.testing.assert_array_equal(*vectors)
