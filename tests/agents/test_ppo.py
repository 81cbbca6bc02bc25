"""PPO against a second, plainer implementation, and its promises one by one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from probes import bits, naive_gae, random_trajectory, restarting, walk

from rljax import networks
from rljax.agents.ppo import PPOConfig, adaptive_kl, ppo
from rljax.envs import wrappers
from rljax.training.learner import make_learner, train
from rljax.types import Env, EnvSpec, Step, params_of

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B, UPDATES = 8, 3, 4
SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=B)
CONFIG = PPOConfig(
    num_envs=B, num_steps=T, total_timesteps=T * B * UPDATES, hidden_sizes=(5,), learning_rate=0.03,
    update_epochs=3, num_minibatches=1, gamma=0.9, gae_lambda=0.8, ent_coef=0.02, vf_coef=0.7,
    clip_eps=0.05, anneal_lr=False, max_grad_norm=0.3,
)  # fmt: skip
NETWORK = networks.actor_critic_network(SPEC, CONFIG.hidden_sizes, CONFIG.activation)


def make(config=CONFIG, **pieces):
    """An agent, its state, a trajectory that it could have played, and its update."""
    agent = ppo(config, SPEC, network=NETWORK, **pieces)
    state = agent.init(jax.random.key(0))
    trajectory = random_trajectory(3, T, B, SPEC)
    logits = NETWORK.apply(state.params, trajectory.obs)[0].logits
    extras = {"raw_action": trajectory.action, "policy": (logits,)}
    return state, trajectory._replace(extras=extras), jax.jit(agent.update)


def log_softmax(logits):
    return logits - jnp.log(jnp.exp(logits).sum(axis=-1, keepdims=True))


def plain_loss(params, old, beta, trajectory, advantage, target, config):
    """The loss of the paper, eq. 9, written out for one discrete action."""
    policy, value = NETWORK.apply(params, trajectory.obs)
    old_policy, old_value = NETWORK.apply(old, trajectory.obs)
    new, old = log_softmax(policy.logits), log_softmax(old_policy.logits)

    def chosen(x):
        return jnp.take_along_axis(x, trajectory.action[..., None], axis=-1)[..., 0]

    ratio = jnp.exp(chosen(new) - chosen(old))
    scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    if config.surrogate == "clip":
        held = jnp.where(ratio > 1, jnp.minimum(ratio, 1 + config.clip_eps), 0.0)
        held += jnp.where(ratio <= 1, jnp.maximum(ratio, 1 - config.clip_eps), 0.0)
        gain = jnp.minimum(ratio * scaled, held * scaled)
    else:
        gain = ratio * scaled - beta * (jnp.exp(old) * (old - new)).sum(axis=-1)
    error = jnp.square(value - target)
    if config.clip_value:
        moved = old_value + jnp.clip(value - old_value, -config.clip_eps, config.clip_eps)
        error = jnp.maximum(error, jnp.square(moved - target))
    entropy = -(jnp.exp(new) * new).sum(axis=-1)
    loss = -gain + config.vf_coef * 0.5 * error - config.ent_coef * entropy
    return loss.mean()


def plain_update(state, trajectory, config, beta):
    """Full-batch epochs of Adam on clipped gradients."""
    value = NETWORK.apply(state.params, trajectory.obs)[1]
    next_value = NETWORK.apply(state.params, trajectory.next_obs)[1]
    advantage = naive_gae(
        trajectory.reward, value, next_value, trajectory.terminated, trajectory.truncated,
        config.gamma, config.gae_lambda,
    )  # fmt: skip
    target = jnp.asarray(advantage + np.asarray(value), jnp.float32)
    advantage = jnp.asarray(advantage, jnp.float32)
    slope = jax.jit(
        lambda params: jax.grad(plain_loss)(
            params, state.params, beta, trajectory, advantage, target, config
        )
    )
    params, adam, norms = state.params, optax.adam(config.learning_rate, eps=1e-5), []
    moments = adam.init(params)
    for _ in range(config.update_epochs):
        grads = slope(params)
        norm = jnp.sqrt(sum(jnp.square(x).sum() for x in jax.tree.leaves(grads)))
        norms.append(float(norm))
        scale = jnp.minimum(1.0, config.max_grad_norm / norm)
        steps, moments = adam.update(jax.tree.map(lambda x: scale * x, grads), moments)
        params = optax.apply_updates(params, steps)
    assert max(norms) > config.max_grad_norm  # the clipping of gradients is at work
    return params


@pytest.mark.parametrize("options", [{}, {"surrogate": "kl", "clip_value": True}])
def test_an_update_is_that_of_the_paper_written_out(options):
    config = dataclasses.replace(CONFIG, **options)
    state, trajectory, update = make(config)
    beta = 1.0
    if config.surrogate == "kl":  # a weight at which the penalty is felt
        beta = 8.0
        state = state._replace(surrogate=jnp.float32(beta))
    expected = plain_update(state, trajectory, config, beta)
    after, metrics = update(state, trajectory, jax.random.key(1))
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(after.params), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4, err_msg=jax.tree_util.keystr(path))
    assert metrics["losses/clip_fraction"] > 0.1  # the ratio left the interval


def test_beta_is_adapted_once_an_update_by_the_kl_after_it():
    """K33, with KL(old || new): eq. 8 and section 4."""
    config = dataclasses.replace(CONFIG, surrogate="kl", learning_rate=0.01)
    state, trajectory, _ = make(config)
    state = state._replace(surrogate=jnp.float32(3.0))

    @jax.jit
    def update(target):
        agent = ppo(dataclasses.replace(config, target_kl=target), SPEC, network=NETWORK)
        return agent.update(state, trajectory, jax.random.key(1))[0]

    old, new = (
        log_softmax(NETWORK.apply(params, trajectory.obs)[0].logits)
        for params in (state.params, update(1.0).params)
    )
    kl = float((jnp.exp(old) * (old - new)).sum(axis=-1).mean())
    for target, beta in ((kl / 1.6, 6.0), (kl / 1.4, 3.0), (1.4 * kl, 3.0), (1.6 * kl, 1.5)):
        assert float(update(target).surrogate) == beta


def test_the_first_update_takes_the_full_rate_and_the_last_one_over_the_number():
    """K39: annealing counts updates, not minibatches."""
    rate = 1e-4  # so small that the gradients of both agents are the same
    config = dataclasses.replace(
        CONFIG, learning_rate=rate, update_epochs=2, num_minibatches=2, max_grad_norm=1e9
    )
    paths = []
    for anneal_lr in (False, True):
        state, trajectory, update = make(dataclasses.replace(config, anneal_lr=anneal_lr))
        params = [ravel_pytree(state.params)[0]]
        for i in range(UPDATES):
            state, _ = update(state, trajectory, jax.random.key(i))
            params.append(ravel_pytree(state.params)[0])
        paths.append(np.abs(np.diff(params, axis=0)).sum(axis=1))
    np.testing.assert_allclose(paths[1] / paths[0], [1.0, 0.75, 0.5, 0.25], rtol=0.05)
    assert paths[1][0] == paths[0][0]  # in all of its minibatches


@pytest.mark.parametrize("everything", [False, True])
def test_the_ratio_of_the_first_minibatch_is_one(everything):
    """K30, where the statistics of normalisation have moved, and actions have been clipped."""
    env = wrappers.batched(walk(continuous=everything), B)
    network = networks.actor_critic_network(env.spec, (5,), "tanh")
    config = dataclasses.replace(
        CONFIG, update_epochs=1, clip_eps=1e-5, normalize_obs=everything,
        normalize_reward=everything,
    )  # fmt: skip
    seen = []

    agent = ppo(config, env.spec, network=network)
    learner = make_learner(agent, env, T)
    state = jax.jit(learner.init)(jax.random.key(0))
    step = jax.jit(learner.step)
    for _ in range(3):
        state, metrics = step(state)
        seen.append((float(metrics["losses/clip_fraction"]), float(metrics["losses/kl"])))
    np.testing.assert_allclose(seen, np.zeros((3, 2)), atol=1e-7)
    if everything:
        assert float(state.agent.obs.num_samples) == 3 * T * B


def test_minibatches_must_divide_the_batch():
    with pytest.raises(ValueError, match=r"`num_minibatches` is 5, .* 3 x 8 = 24"):
        dataclasses.replace(CONFIG, num_minibatches=5)


def test_a_surrogate_of_ones_own_is_what_is_climbed():
    """One that is blind to the advantages, and keeps count of the updates."""
    surrogate = adaptive_kl(0.01)._replace(
        init=lambda: jnp.int32(0),
        objective=lambda count, ratio, advantage, kl: 0.0 * ratio,
        adapt=lambda count, kl: count + 1,
    )
    config = dataclasses.replace(CONFIG, ent_coef=0.0)
    state, trajectory, update = make(config, surrogate=surrogate)
    after, _ = update(state, trajectory, jax.random.key(1))
    assert int(after.surrogate) == 1
    old, new = state.params["params"], after.params["params"]
    assert bits(old["actor"]) == bits(new["actor"]) and bits(old["logits"]) == bits(new["logits"])
    assert bits(old["critic"]) != bits(new["critic"])


def test_it_finds_the_best_continuous_action():
    """One step, `-(action - 1)^2` in the box [-2, 2]: the mean is to be moved by half of a half."""
    spec = EnvSpec(obs_shape=(1,), action_shape=(1,), action_low=-2.0, action_high=2.0)

    def step(state, action, key):
        obs, yes = jnp.zeros(1), jnp.bool_(True)
        return state, Step(obs, -jnp.square(action[0] - 1.0), yes, ~yes, obs)

    env = restarting(Env(spec, lambda key: (jnp.int32(0), jnp.zeros(1)), step))
    config = PPOConfig(
        num_envs=8, num_steps=8, total_timesteps=64 * 150, hidden_sizes=(4,), learning_rate=0.02,
        update_epochs=4, num_minibatches=1,
    )  # fmt: skip
    env = wrappers.batched(env, 8)
    agent = ppo(config, env.spec)
    learner = make_learner(agent, env, 8)
    state, _ = jax.jit(lambda key: train(learner, key, config.num_updates))(jax.random.key(0))
    action = agent.greedy(state.agent, jnp.zeros((1, 1)), jax.random.key(0))
    np.testing.assert_allclose(action, [[1.0]], atol=0.1)
    assert np.exp(params_of(state.agent)["params"]["log_std"]) < 0.5
