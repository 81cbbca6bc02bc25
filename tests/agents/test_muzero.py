"""Gumbel MuZero: what its model has learned, and where its targets come from."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import ARM, CONSTANT, probe

import rljax
from rljax.agents.muzero import MuZeroConfig, half_gradient, muzero
from rljax.envs import wrappers
from rljax.networks.muzero import muzero_network
from rljax.ops.value_supports import from_support
from rljax.replay import ring
from rljax.training.learner import make_learner, train
from rljax.types import EnvSpec, Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")

SMALL: dict[str, Any] = {
    "num_envs": 4, "num_steps": 8, "total_timesteps": 4 * 8 * 500, "buffer_size": 2048,
    "batch_size": 32, "learning_starts": 256, "train_frequency": 8, "target_update_interval": 64,
    "hidden_sizes": (16,), "activation": "tanh", "num_simulations": 4, "unroll_steps": 2,
    "n_step": 2, "support_size": 5, "learning_rate": 0.01, "vf_coef": 1.0, "gamma": 0.9,
}  # fmt: skip


def config_with(**options: Any) -> MuZeroConfig:
    return MuZeroConfig(**(SMALL | options))


def default_with(**options: Any) -> MuZeroConfig:
    return MuZeroConfig(**options)


def trained(env, **options):
    """Trains in an environment; returns the config, the network, the final state and metrics."""
    config = config_with(**options)
    env = wrappers.batched(env, config.num_envs)
    network = muzero_network(env.spec, config.support_size, config.hidden_sizes, "tanh")
    learner = make_learner(muzero(config, env.spec, network=network), env, config.num_steps)
    run = jax.jit(lambda key: train(learner, key, config.num_updates))
    state, metrics = run(jax.random.key(0))
    return network, state, metrics


def imagined(network, params, actions):
    """The rewards `[K]` and values `[K + 1]` that the model imagines from the observation 0."""
    apply: Any = network.apply
    state = apply(params, jnp.zeros((1, 1)), method="represent")
    rewards, values = [], []
    for action in [*actions, None]:
        values.append(float(from_support(apply(params, state, method="predict")[1])[0]))
        if action is not None:
            action = jnp.array([action])
            state, reward = apply(params, state, action, method="dynamics")
            rewards.append(float(from_support(reward)[0]))
    return rewards, values


def test_the_model_is_absorbing_after_a_terminal_state():
    """Imagined steps after the end have no reward, and the episodes of the metrics are real."""
    network, state, metrics = trained(probe(CONSTANT, 1))
    for actions in ([0, 0], [1, 0], [1, 1]):
        rewards, values = imagined(network, state.agent.params, actions)
        np.testing.assert_allclose(rewards, [1.0, 0.0], atol=0.03)
        np.testing.assert_allclose(values, [1.0, 0.0, 0.0], atol=0.03)
    for name in ("episodic_return", "episodic_length", "reward"):
        np.testing.assert_array_equal(metrics[f"charts/{name}"], 1.0)


@pytest.mark.parametrize("num_players", [1, 2])
def test_the_model_continues_beyond_a_time_limit(num_players):
    """v = 1 + d v: 10 for one player, 1 / 1.9 for two, whose rewards are losses of the other."""
    env = probe(CONSTANT, 4, terminates=False)
    env = env._replace(spec=env.spec._replace(num_players=num_players))
    network, state, metrics = trained(env)
    rewards, values = imagined(network, state.agent.params, [0, 1])
    value = {1: 10.0, 2: 1 / 1.9}[num_players]
    np.testing.assert_allclose(rewards, 1.0, rtol=0.03)
    np.testing.assert_allclose(values, value, rtol=0.05)
    np.testing.assert_array_equal(metrics["charts/episodic_return"], 4.0)


def bandit_rollout(config, policy, value):
    """Random actions of ARM, with the given search results for every step."""
    shape = config.num_steps, config.num_envs
    action = jax.random.bernoulli(jax.random.key(5), shape=shape).astype(jnp.int32)
    yes, no = jnp.ones(shape, bool), jnp.zeros(shape, bool)
    obs = jnp.zeros((*shape, 1))
    extras = {"policy": jnp.broadcast_to(jnp.array(policy), (*shape, 2)),
              "value": jnp.full(shape, value)}  # fmt: skip
    return Transition(obs, action, 2.0 * action - 1.0, yes, no, obs, extras)


def updated(config, rollout, num_updates=30):
    agent = muzero(config, EnvSpec((1,), num_actions=2, num_envs=config.num_envs))

    def body(i, state):
        return agent.update(state, rollout, jax.random.fold_in(jax.random.key(1), i))[0]

    @jax.jit
    def run(key):
        return jax.lax.fori_loop(0, num_updates, body, agent.init(key))

    return run(jax.random.key(0))


def prior(config, state):
    network = muzero_network(EnvSpec((1,), 2), config.support_size, config.hidden_sizes, "tanh")
    apply: Any = network.apply
    root = apply(state.params, jnp.zeros((1, 1)), method="represent")
    logits, value = apply(state.params, root, method="predict")
    return float(jax.nn.softmax(logits)[0, 1]), float(from_support(value)[0])


def test_reanalysis_replaces_old_policies():
    """The stored policy is wrong: without reanalysis it is learned, with it the best is."""
    wrong = config_with(weight_decay=0.0)
    fresh = dataclasses.replace(wrong, num_reanalyzed=wrong.batch_size)
    rollout = bandit_rollout(wrong, [0.9, 0.1], 0.0)
    assert prior(wrong, updated(wrong, rollout))[0] == pytest.approx(0.1, abs=0.03)
    assert prior(fresh, updated(fresh, rollout))[0] > 0.9


@pytest.mark.parametrize("bootstrap", ["search", "target"])
def test_reanalysis_replaces_old_values(bootstrap):
    """Stored search values of 5 enter n-step returns only if they are asked for."""
    old = config_with(bootstrap=bootstrap, gamma=0.5, n_step=1)
    rollout = bandit_rollout(old, [0.5, 0.5], 5.0)
    rollout = rollout._replace(
        reward=jnp.ones_like(rollout.reward), terminated=jnp.zeros_like(rollout.terminated)
    )
    value = prior(old, updated(old, rollout))[1]
    expected = 1 + 0.5 * 5.0 if bootstrap == "search" else 2.0
    np.testing.assert_allclose(value, expected, rtol=0.1)
    fresh = dataclasses.replace(old, num_reanalyzed=old.batch_size)
    value = prior(fresh, updated(fresh, rollout))[1]
    np.testing.assert_allclose(value, 2.0, rtol=0.1)


def test_replay_holds_the_policy_and_the_value_of_the_search():
    config = config_with(total_timesteps=32 * 10)
    env = wrappers.batched(probe(ARM, 1), config.num_envs)
    learner = make_learner(muzero(config, env.spec), env, config.num_steps)
    state, _ = jax.jit(lambda key: train(learner, key, config.num_updates))(jax.random.key(0))
    extras = ring.contents(state.agent.replay.ring).extras
    assert extras["policy"].shape == (2048, 2) and extras["value"].shape == (2048,)
    np.testing.assert_allclose(extras["policy"][:320].sum(axis=-1), 1.0, rtol=1e-5)


def test_half_of_the_gradient_passes():
    value, gradient = jax.value_and_grad(lambda x: jnp.square(half_gradient(x)))(3.0)
    assert (value, gradient) == (9.0, 3.0)


SPEC = EnvSpec((4,), num_actions=2, env_id="any", num_envs=8)


def test_the_memory_of_sequences_counts_policies_and_values(monkeypatch):
    """Two observations of 16 bytes, 4 of the action, 4 of the reward, 2 flags, and 12 of extras."""
    monkeypatch.setattr("rljax.replay.checks.device_bytes", lambda: 2**30)
    config = default_with(buffer_size=10**9)
    with pytest.raises(ValueError, match="`buffer_size` is .* items of 54 bytes need"):
        muzero(config, SPEC)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"learning_starts": 149, "batch_size": 8},
            r"first sequences need \(unroll_steps \+ n_step\) x num_envs",
        ),
        ({"num_reanalyzed": 9, "batch_size": 8}, "batch has only 8 sequences"),
        ({"bootstrap": "both"}, "bootstrap"),
        ({"num_simulations": 0}, "num_simulations"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        default_with(num_envs=10, **options)


def test_wrong_environments_and_networks_are_refused():
    with pytest.raises(ValueError, match="continuous actions"):
        muzero(default_with(), EnvSpec((3,), action_shape=(1,)))
    with pytest.raises(ValueError, match="it must be a flax linen module"):
        muzero(default_with(), SPEC, network=3)


@pytest.mark.slow
def test_learns_cartpole_in_30_000_steps():
    result = rljax.train(
        "muzero", "CartPole-v1", num_seeds=4, seed=7, total_timesteps=30_000, num_envs=16,
        train_frequency=16, gradient_steps=2, hidden_sizes=(64, 64), num_reports=3,
        eval_episodes=20, progress=False,
    )  # fmt: skip
    evaluation: Any = result.evaluation
    assert (np.asarray(evaluation["returns"]).mean(axis=-1) > 150).sum() >= 3
