"""PQN against a second, plainer implementation; its acting, options and messages."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import random_trajectory

import rljax
from rljax.agents.pqn import PQNConfig, pqn
from rljax.networks import action_values
from rljax.ops import optimizers
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B = 6, 3
SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=B)
CONFIG = PQNConfig(
    num_envs=B, num_steps=T, total_timesteps=T * B * 10, hidden_sizes=(5,), learning_rate=0.03,
    update_epochs=8, num_minibatches=1, gamma=0.9, trace_lambda=0.65, anneal_lr=False,
    max_grad_norm=0.3,
)  # fmt: skip
NETWORK = action_values.q_network(SPEC, (5,), "relu", layer_norm=True)


def plain_targets(trajectory, params):
    """Q(lambda) of algorithm 1 by recursion over one environment at a time, in float64."""
    next_value = np.asarray(NETWORK.apply(params, trajectory.next_obs).max(axis=-1), np.float64)
    targets = np.zeros((T, B))
    for b in range(B):
        next_target = None
        for t in reversed(range(T)):
            reward = float(trajectory.reward[t, b])
            if trajectory.terminated[t, b]:
                target = reward
            elif next_target is None or trajectory.truncated[t, b]:
                target = reward + 0.9 * next_value[t, b]
            else:
                target = reward + 0.9 * (0.35 * next_value[t, b] + 0.65 * next_target)
            targets[t, b] = next_target = target
    return jnp.asarray(targets, jnp.float32)


def test_an_update_equals_a_plain_implementation_of_the_paper():
    """Full-batch epochs of RAdam with clipped gradients of the loss to fixed targets."""
    agent = pqn(CONFIG, SPEC)
    state = agent.init(jax.random.key(0))
    trajectory = random_trajectory(3, T, B, SPEC)
    values = NETWORK.apply(state.params, trajectory.obs)
    trajectory = trajectory._replace(extras={"value": values.max(axis=-1)})
    target = plain_targets(trajectory, state.params)
    chosen = jax.nn.one_hot(trajectory.action, 4)

    @jax.jit
    def gradient(params):
        def loss(params):
            value = (NETWORK.apply(params, trajectory.obs) * chosen).sum(axis=-1)
            return 0.5 * jnp.square(value - target).mean()

        return jax.grad(loss)(params)

    params, radam, norms = state.params, optax.radam(0.03), []
    opt_state = radam.init(params)
    for _ in range(CONFIG.update_epochs):
        grads = gradient(params)
        norms.append(float(optax.global_norm(grads)))
        grads = jax.tree.map(lambda x: x * min(1.0, 0.3 / norms[-1]), grads)
        updates, opt_state = radam.update(grads, opt_state)
        params = optax.apply_updates(params, updates)
    assert max(norms) > 0.3
    after, metrics = jax.jit(agent.update)(state, trajectory, jax.random.key(1))
    for x, y in zip(jax.tree.leaves(after.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-4)
    assert int(after.env_steps.value) == T * B and metrics["losses/td_loss"] > 0


def test_the_learning_rate_is_annealed_once_per_update():
    """All epochs and minibatches of update k of N have the rate (1 - k / N) x 0.03."""
    options = {"anneal_lr": True, "update_epochs": 2, "num_minibatches": 3}
    config = dataclasses.replace(CONFIG, total_timesteps=T * B * 4, **options)
    rates = jnp.repeat(0.03 * (1.0 - jnp.arange(4) / 4), 2 * 3)
    by_hand = optimizers.clipped(optax.radam(lambda count: rates[count]), config.max_grad_norm)
    trajectory = random_trajectory(3, T, B, SPEC)
    trajectory = trajectory._replace(extras={"value": jnp.zeros((T, B))})

    def learn(**pieces):
        agent = pqn(config, SPEC, network=NETWORK, **pieces)
        state, update = agent.init(jax.random.key(0)), jax.jit(agent.update)
        for i in range(4):
            state, _ = update(state, trajectory, jax.random.key(i))
        return state.params

    for x, y in zip(*map(jax.tree.leaves, (learn(), learn(optimizer=by_hand))), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_acting_returns_the_largest_value_as_an_extra():
    agent = pqn(CONFIG, SPEC)
    state = agent.init(jax.random.key(0))
    obs = jax.random.normal(jax.random.key(1), (B, 3))
    values = NETWORK.apply(state.params, obs)
    for steps, explores in ((0, True), (10**6, False)):  # epsilon is 1, then 0.05
        state = state._replace(env_steps=state.env_steps._replace(value=jnp.int32(steps)))
        order = jax.random.uniform(jax.random.key(2), (B, 4))
        noise = jnp.concatenate([jnp.full((B, 1), 0.5), order], axis=-1), None
        action, extras = agent.act(state, obs, noise)
        np.testing.assert_allclose(extras["value"], values.max(axis=-1), rtol=1e-6)
        expected = order.argmax(axis=-1) if explores else values.argmax(axis=-1)
        np.testing.assert_array_equal(action, expected)
    np.testing.assert_array_equal(
        agent.greedy(state, obs, jax.random.key(0)), values.argmax(axis=-1)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_minibatches": 7}, "`num_minibatches` is 7"),
        ({"trace_lambda": 1.5}, "`trace_lambda` is 1.5"),
    ],
)
def test_impossible_options_are_rejected_in_one_sentence(options, message):
    with pytest.raises(ValueError) as error:
        dataclasses.replace(CONFIG, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_continuous_actions_are_rejected():
    with pytest.raises(ValueError, match="`pqn` needs discrete actions"):
        rljax.train("pqn", "Pendulum-v1", progress=False)
    with pytest.raises(ValueError, match="action values need discrete actions"):
        pqn(CONFIG, SPEC._replace(num_actions=0, action_shape=(2,)))


def test_a_network_that_is_no_q_network_is_rejected_by_the_maker():
    network = action_values.q_network(SPEC, (5,), num_outputs=7, layer_norm=True)
    message = r"returns an array \[2, 4, 7\], but a Q-network maps .* to an array \[2, 4\]\."
    with pytest.raises(ValueError, match=message):
        pqn(CONFIG, SPEC, network=network)
    pqn(CONFIG, SPEC, network=NETWORK)


@pytest.mark.slow
def test_solves_cartpole_in_200k_steps():
    """At least 12 of 16 seeds."""
    run = rljax.train("pqn", "CartPole-v1", num_seeds=16, total_timesteps=200_000, progress=False)
    returns = run.evaluation["returns"].mean(axis=-1)
    assert (returns >= 450).sum() >= 12, returns
