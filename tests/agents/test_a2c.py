"""A2C against its gradient and its optimizers, written out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import naive_gae, random_trajectory

from rljax import networks
from rljax.agents.a2c import A2CConfig, a2c
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B, UPDATES = 6, 3, 4
SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=B)
CONFIG = A2CConfig(
    num_envs=B, num_steps=T, total_timesteps=T * B * UPDATES, hidden_sizes=(5,), learning_rate=0.03,
    gamma=0.9, gae_lambda=0.8, ent_coef=0.02, vf_coef=0.7, max_grad_norm=0.3, anneal_lr=True,
    normalize_obs=False, normalize_reward=False,
)  # fmt: skip
NETWORK = networks.actor_critic_network(SPEC, CONFIG.hidden_sizes, CONFIG.activation)


def make(config):
    agent = a2c(config, SPEC, network=NETWORK)
    trajectory = random_trajectory(3, T, B, SPEC)
    trajectory = trajectory._replace(extras={"raw_action": trajectory.action})
    return agent.init(jax.random.key(0)), trajectory, jax.jit(agent.update)


def plain_loss(params, trajectory, advantage, target, config):
    policy, value = NETWORK.apply(params, trajectory.obs)
    log_policy = policy.logits - jnp.log(jnp.exp(policy.logits).sum(axis=-1, keepdims=True))
    chosen = jnp.take_along_axis(log_policy, trajectory.action[..., None], axis=-1)[..., 0]
    entropy = -(jnp.exp(log_policy) * log_policy).sum(axis=-1)
    loss = -chosen * advantage + config.vf_coef * 0.5 * jnp.square(value - target)
    return (loss - config.ent_coef * entropy).mean()


@jax.jit
def gradient_and_values(params, trajectory, advantage, target):
    gradient = jax.grad(plain_loss)
    values = [NETWORK.apply(params, obs)[1] for obs in (trajectory.obs, trajectory.next_obs)]
    return gradient(params, trajectory, advantage, target, CONFIG), values


def steps_of(name):
    """One step of an optimizer in float64: `(grad, moments, count, rate) -> (step, moments)`."""

    def adam(grad, moments, count, rate):
        first, second = 0.9 * moments[0] + 0.1 * grad, 0.999 * moments[1] + 0.001 * grad**2
        root = np.sqrt(second / (1 - 0.999**count)) + 1e-5
        return -rate * first / (1 - 0.9**count) / root, (first, second)

    def rmsprop(grad, moments, count, rate):  # epsilon inside the root, as in the A3C paper
        second = 0.99 * moments[1] + 0.01 * grad**2
        return -rate * grad / np.sqrt(second + 1e-5), (moments[0], second)

    return {"adam": adam, "rmsprop": rmsprop}[name]


@pytest.mark.parametrize("options", [{}, {"optimizer": "rmsprop", "normalize_advantage": True}])
def test_updates_equal_a_plain_implementation(options):
    """Two updates, so that the optimizer's moments and annealing matter."""
    config = dataclasses.replace(CONFIG, **options)
    state, trajectory, update = make(config)
    zeros = jnp.zeros((T, B))
    step, moments = steps_of(config.optimizer), None
    params = state.params
    for count in (1, 2):
        value, next_value = gradient_and_values(params, trajectory, zeros, zeros)[1]
        advantage = naive_gae(
            trajectory.reward, value, next_value, trajectory.terminated, trajectory.truncated,
            config.gamma, config.gae_lambda,
        )  # fmt: skip
        target = jnp.asarray(advantage + np.asarray(value), jnp.float32)
        if config.normalize_advantage:
            advantage = (advantage - advantage.mean()) / advantage.std()
        advantage = jnp.asarray(advantage, jnp.float32)
        grads = gradient_and_values(params, trajectory, advantage, target)[0]
        leaves, structure = jax.tree.flatten(grads)
        leaves = [np.asarray(x, np.float64) for x in leaves]
        norm = np.sqrt(sum(np.square(x).sum() for x in leaves))
        assert norm > config.max_grad_norm
        rate = config.learning_rate * (1 - (count - 1) / UPDATES)
        moments = moments or [(0.0 * x, 0.0 * x) for x in leaves]
        stepped = [
            step(x * config.max_grad_norm / norm, m, count, rate)
            for x, m in zip(leaves, moments, strict=True)
        ]
        moments = [m for _, m in stepped]
        old = [np.asarray(x) for x in jax.tree.leaves(params)]
        new = [jnp.float32(x + s) for x, (s, _) in zip(old, stepped, strict=True)]
        params = jax.tree.unflatten(structure, new)
        state, _ = update(state, trajectory, jax.random.key(count))
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(state.params), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4, err_msg=jax.tree_util.keystr(path))


def test_a_larger_entropy_bonus_gives_a_policy_of_larger_entropy():
    trajectory = make(CONFIG)[1]

    @jax.jit
    def entropy_after(ent_coef):
        config = dataclasses.replace(CONFIG, ent_coef=ent_coef, max_grad_norm=1e9)
        agent = a2c(config, SPEC, network=NETWORK)
        state = agent.init(jax.random.key(0))
        # a policy that is not uniform, whose entropy can increase
        state = state._replace(params=jax.tree.map(lambda x: x + 0.3, state.params))
        tilted = {**state.params["params"]}
        tilted["logits"] = {
            "kernel": tilted["logits"]["kernel"], "bias": jnp.array([2.0, 0.0, -1.0, 0.5])
        }  # fmt: skip
        state = state._replace(params={"params": tilted})
        state, _ = agent.update(state, trajectory, jax.random.key(1))
        return NETWORK.apply(state.params, trajectory.obs)[0].entropy().mean()

    entropies = [float(entropy_after(x)) for x in (0.0, 0.3, 10.0)]
    assert entropies == sorted(entropies) and entropies[0] < entropies[-1] - 1e-3
