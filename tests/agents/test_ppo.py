"""PPO against a second, plain implementation, and its properties one by one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from probes import bits, naive_gae, random_trajectory, restarting, walk

from rljax import networks
from rljax.agents.ppo import PPOConfig, ppo
from rljax.agents.ppo_loss import ppo_loss
from rljax.agents.surrogates import adaptive_kl, clip
from rljax.envs import wrappers
from rljax.training.learner import make_learner, train
from rljax.types import Env, EnvSpec, Step, params_of

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B, UPDATES = 8, 3, 4
SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=B)
CONFIG = PPOConfig(
    num_envs=B, num_steps=T, total_timesteps=T * B * UPDATES, hidden_sizes=(5,), learning_rate=0.03,
    update_epochs=3, num_minibatches=1, gamma=0.9, gae_lambda=0.8, ent_coef=0.02, vf_coef=0.7,
    clip_eps=0.05, anneal_lr=False, max_grad_norm=0.3, normalize_obs=False, normalize_reward=False,
)  # fmt: skip
NETWORK = networks.actor_critic_network(SPEC, CONFIG.hidden_sizes, CONFIG.activation)


def make(config=CONFIG, **pieces):
    """The state of an agent, a trajectory of its policy, and its jitted update."""
    agent = ppo(config, SPEC, network=NETWORK, **pieces)
    state = agent.init(jax.random.key(0))
    trajectory = random_trajectory(3, T, B, SPEC)
    logits = NETWORK.apply(state.params, trajectory.obs)[0].logits
    extras = {"raw_action": trajectory.action, "policy": (logits,)}
    return state, trajectory._replace(extras=extras), jax.jit(agent.update)


def log_softmax(logits):
    return logits - jnp.log(jnp.exp(logits).sum(axis=-1, keepdims=True))


def plain_loss(params, old, beta, trajectory, advantage, target, config):
    """Eq. 9, written out for one discrete action."""
    policy, value = NETWORK.apply(params, trajectory.obs)
    old_policy, old_value = NETWORK.apply(old, trajectory.obs)
    new, old = log_softmax(policy.logits), log_softmax(old_policy.logits)

    def chosen(x):
        return jnp.take_along_axis(x, trajectory.action[..., None], axis=-1)[..., 0]

    ratio = jnp.exp(chosen(new) - chosen(old))
    scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    if config.surrogate == "clip":
        clipped = jnp.where(ratio > 1, jnp.minimum(ratio, 1 + config.clip_eps), 0.0)
        clipped += jnp.where(ratio <= 1, jnp.maximum(ratio, 1 - config.clip_eps), 0.0)
        surrogate = jnp.minimum(ratio * scaled, clipped * scaled)
    else:
        surrogate = ratio * scaled - beta * (jnp.exp(old) * (old - new)).sum(axis=-1)
    error = jnp.square(value - target)
    if config.clip_value:
        clipped = old_value + jnp.clip(value - old_value, -config.clip_eps, config.clip_eps)
        error = jnp.maximum(error, jnp.square(clipped - target))
    entropy = -(jnp.exp(new) * new).sum(axis=-1)
    loss = -surrogate + config.vf_coef * 0.5 * error - config.ent_coef * entropy
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
    gradient = jax.jit(
        lambda params: jax.grad(plain_loss)(
            params, state.params, beta, trajectory, advantage, target, config
        )
    )
    params, adam, norms = state.params, optax.adam(config.learning_rate, eps=1e-5), []
    moments = adam.init(params)
    for _ in range(config.update_epochs):
        grads = gradient(params)
        norm = jnp.sqrt(sum(jnp.square(x).sum() for x in jax.tree.leaves(grads)))
        norms.append(float(norm))
        scale = jnp.minimum(1.0, config.max_grad_norm / norm)
        steps, moments = adam.update(jax.tree.map(lambda x: scale * x, grads), moments)
        params = optax.apply_updates(params, steps)
    assert max(norms) > config.max_grad_norm  # gradients are clipped
    return params


@pytest.mark.parametrize("options", [{}, {"surrogate": "kl", "clip_value": True}])
def test_an_update_equals_a_plain_implementation_of_the_paper(options):
    config = dataclasses.replace(CONFIG, **options)
    state, trajectory, update = make(config)
    beta = 1.0
    if config.surrogate == "kl":  # large enough for the penalty to matter
        beta = 8.0
        state = state._replace(surrogate=jnp.float32(beta))
    expected = plain_update(state, trajectory, config, beta)
    after, metrics = update(state, trajectory, jax.random.key(1))
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(after.params), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4, err_msg=jax.tree_util.keystr(path))
    if config.surrogate == "clip":
        assert metrics["losses/clip_fraction"] > 0.1  # the ratio left the interval
    else:
        assert "losses/clip_fraction" not in metrics and metrics["losses/kl"] > 1e-3


def test_beta_is_adapted_once_an_update_by_the_kl_after_it():
    """Eq. 8 and section 4, with KL(old || new)."""
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


def test_annealing_counts_updates_not_minibatches():
    """The first update has the full learning rate, the last one of n has 1 / n of it."""
    rate = 1e-4  # so small that both agents have the same gradients
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
    assert paths[1][0] == paths[0][0]  # in all minibatches of the first update


@pytest.mark.parametrize("everything", [False, True])
def test_the_ratio_of_the_first_minibatch_is_one(everything):
    """Also after normalization statistics have changed, and with clipped continuous actions."""
    env = wrappers.batched(walk(continuous=everything), B)
    network = networks.actor_critic_network(env.spec, (5,), "tanh")
    config = dataclasses.replace(
        CONFIG, update_epochs=1, clip_eps=1e-5, normalize_obs=everything,
        normalize_reward=everything,
    )  # fmt: skip
    ratios = []
    agent = ppo(config, env.spec, network=network)
    learner = make_learner(agent, env, T)
    state = jax.jit(learner.init)(jax.random.key(0))
    step = jax.jit(learner.step)
    for _ in range(3):
        state, metrics = step(state)
        ratios.append((float(metrics["losses/clip_fraction"]), float(metrics["losses/kl"])))
    np.testing.assert_allclose(ratios, np.zeros((3, 2)), atol=1e-7)
    if everything:
        assert float(state.agent.obs.num_samples) == 3 * T * B


def test_minibatches_must_divide_the_rollout():
    with pytest.raises(ValueError, match=r"`num_minibatches` is 5, .* 3 x 8 = 24"):
        dataclasses.replace(CONFIG, num_minibatches=5)


def test_a_custom_surrogate_replaces_the_objective():
    """It ignores advantages, and its state counts updates."""
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


def test_a_custom_loss_replaces_the_loss():
    """It adds a metric and drops the value loss, so that the critic does not change."""

    def policy_loss(network, config, params, batch, surrogate, surrogate_state, average):
        config = dataclasses.replace(config, vf_coef=0.0)
        loss, metrics = ppo_loss(
            network, config, params, batch, surrogate, surrogate_state, average
        )
        return loss, {**metrics, "losses/advantage": batch.advantage.mean()}

    state, trajectory, update = make(loss=policy_loss)
    after, metrics = update(state, trajectory, jax.random.key(1))
    assert "losses/advantage" in metrics
    old, new = state.params["params"], after.params["params"]
    assert bits(old["critic"]) == bits(new["critic"]) and bits(old["value"]) == bits(new["value"])
    assert bits(old["actor"]) != bits(new["actor"])
    expected, _ = make(dataclasses.replace(CONFIG, vf_coef=0.0))[2](
        state, trajectory, jax.random.key(1)
    )
    assert bits(after) == bits(expected)


@pytest.mark.parametrize("surrogate", [lambda x: x, clip, 0.2, (1, 2, 3)])
def test_a_surrogate_of_the_wrong_form_is_refused(surrogate):
    with pytest.raises(
        ValueError, match=r"`surrogate` is .* must be an `rljax.Surrogate`, such as .*clip"
    ):
        ppo(CONFIG, SPEC, surrogate=surrogate)


WRONG_LOSSES = {
    "no metrics": (lambda *args: jnp.float32(0), r"returns an array of shape \(\), .* a pair"),
    "one value per sample": (
        lambda network, config, params, batch, *_: (batch.advantage, {}),
        r"returns a tuple \(an array of shape \(24,\), a dict\), .* \(scalar, metrics\)",
    ),
    "metrics in a tuple": (lambda *args: (jnp.float32(0), ()), "must return a pair"),
    "a Python object": (lambda *args: None, "returns a NoneType, but"),
}


@pytest.mark.parametrize("case", WRONG_LOSSES)
def test_a_loss_of_the_wrong_form_is_refused(case):
    loss, message = WRONG_LOSSES[case]
    state, trajectory, update = make(loss=loss)
    with pytest.raises(ValueError, match=message):
        update(state, trajectory, jax.random.key(1))


def test_a_surrogate_that_stops_needs_the_kl_of_the_loss():
    surrogate = adaptive_kl(0.01)._replace(stop=lambda kl: kl > 1.0)
    loss = lambda *args: (ppo_loss(*args)[0], {})  # noqa: E731
    state, trajectory, update = make(loss=loss, surrogate=surrogate)
    with pytest.raises(ValueError, match="stops by `losses/kl`: add it to the metrics"):
        update(state, trajectory, jax.random.key(1))


def test_it_finds_the_best_continuous_action():
    """Episodes of one step with reward `-(action - 1)^2` in the box [-2, 2]."""
    spec = EnvSpec(obs_shape=(1,), action_shape=(1,), action_low=-2.0, action_high=2.0)

    def step(state, action, key):
        obs, yes = jnp.zeros(1), jnp.bool_(True)
        return state, Step(obs, -jnp.square(action[0] - 1.0), yes, ~yes, obs)

    env = restarting(Env(spec, lambda key: (jnp.int32(0), jnp.zeros(1)), step))
    config = PPOConfig(
        num_envs=8, num_steps=8, total_timesteps=64 * 150, hidden_sizes=(4,), learning_rate=0.02,
        update_epochs=4, num_minibatches=1, normalize_obs=False, normalize_reward=False,
    )  # fmt: skip
    env = wrappers.batched(env, 8)
    agent = ppo(config, env.spec)
    learner = make_learner(agent, env, 8)
    state, _ = jax.jit(lambda key: train(learner, key, config.num_updates))(jax.random.key(0))
    action = agent.greedy(state.agent, jnp.zeros((1, 1)), jax.random.key(0))
    np.testing.assert_allclose(action, [[1.0]], atol=0.1)
    assert np.exp(params_of(state.agent)["params"]["log_std"]) < 0.5
