"""SAC against gradient steps computed by hand in float64, and its temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_networks import (
    SPEC,
    Adam,
    ConstantCritic,
    GaussianPolicy,
    N,
    QuadraticCritic,
    assert_trees_close,
    features,
    float64,
    importance_weight,
    make_batch,
    make_config,
    replay_of,
    slope,
    updates,
)
from scipy import stats

from rljax.agents.sac import SACConfig, sac
from rljax.types import sample_one

pytestmark = pytest.mark.usefixtures("quick_compiles")

CONFIG = make_config(SACConfig, initial_alpha=0.4, alpha_learning_rate=0.05)
ACTOR_RATE, CRITIC_RATE = 0.2, 0.1
NORMAL = np.random.default_rng(5).normal(size=(2, N, 2))  # of next actions, and of actions


@pytest.fixture
def known_normals(monkeypatch):
    """Replaces the normal samples of every gradient step by `NORMAL`."""
    normal = jnp.asarray(NORMAL, jnp.float32)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.broadcast_to(normal, shape))


def make_agent(config=CONFIG, batch=None, **pieces):
    batch = make_batch(SPEC)[0] if batch is None else batch
    pieces = {
        "policy": GaussianPolicy(), "critic": QuadraticCritic(), "replay": replay_of(batch),
        "actor_optimizer": optax.sgd(ACTOR_RATE), "critic_optimizer": optax.sgd(CRITIC_RATE),
    } | pieces  # fmt: skip
    return sac(config, SPEC, **pieces)


def sample(actor, obs, normal):
    """Actions, their log-probabilities, and the standard deviations times the normals."""
    mean, log_std = obs @ actor["mean"], obs @ actor["log_std"] - 0.5
    step = np.exp(log_std) * normal
    u = mean + step
    log_prob = stats.norm(mean, np.exp(log_std)).logpdf(u) - np.log(1.0 - np.tanh(u) ** 2)
    return np.tanh(u), log_prob.sum(axis=1), step


def gradient_step(learned, data, weight, adam, tau=0.25):
    """Algorithm 1 with plain gradient descent, and Adam for log alpha, whose target is -2."""
    actor, critics, target, log_alpha = learned
    alpha = np.exp(log_alpha)
    next_action, next_log_prob, _ = sample(actor, data.next_obs, NORMAL[0])
    next_q = (features(data.next_obs, next_action) @ target.T).min(axis=1)
    td_target = data.td_target(next_q - alpha * next_log_prob)
    x = features(data.obs, data.action)
    td_error = td_target[:, None] - x @ critics.T
    metrics = {
        "losses/critic_loss": (weight[:, None] * td_error**2 / 2).mean(axis=0).sum(),
        "losses/q_value": (x @ critics.T).mean(),
    }
    critics = critics + CRITIC_RATE * (weight[:, None] * td_error).T @ x / N

    action, log_prob, step = sample(actor, data.obs, NORMAL[1])
    q = features(data.obs, action) @ critics.T
    assert 0 < q.argmin(axis=1).sum() < N  # each critic is the smaller one somewhere
    q_slope = np.where(q.argmin(axis=1)[:, None] == 0, *(slope(w, action) for w in critics))
    by_mean = alpha * 2.0 * action - q_slope * (1.0 - action**2)
    by_log_std = by_mean * step - alpha
    actor = {
        "mean": actor["mean"] - ACTOR_RATE * data.obs.T @ by_mean / N,
        "log_std": actor["log_std"] - ACTOR_RATE * data.obs.T @ by_log_std / N,
    }
    entropy = -log_prob.mean()
    metrics |= {
        "losses/policy_loss": (alpha * log_prob - q.min(axis=1)).mean(),
        "losses/entropy": entropy, "losses/alpha": alpha,
    }  # fmt: skip
    log_alpha = log_alpha + adam.step(alpha * (entropy + 2.0))
    target = tau * critics + (1 - tau) * target
    return (actor, critics, target, log_alpha), td_error, metrics


def learned_of(state):
    params, target = state.params, state.learned.target_params
    critics = params.critic["params"]["w"], target["params"]["w"]
    return float64((params.actor["params"], *critics, params.log_alpha))


@pytest.mark.parametrize("discount", [None, 0.729])
def test_updates_equal_gradient_steps_computed_by_hand(known_normals, discount):
    """With importance weights and, in one case, the discounts of n-step replay."""
    batch, data = make_batch(SPEC, discount)
    states, metrics = updates(make_agent(batch=batch), SPEC, 3)
    learned, adam = learned_of(states[0]), Adam(0.05)
    for update in range(3):
        learned, td_error, expected = gradient_step(learned, data, importance_weight(update), adam)
        assert_trees_close(learned_of(states[update + 1]), learned)
        replay = states[update + 1].replay
        np.testing.assert_allclose(replay[0], np.abs(td_error).mean(axis=1), rtol=1e-4)
        losses = {name: metrics[update][name] for name in expected}
        assert losses == pytest.approx(expected, rel=1e-4)


def test_the_target_adds_the_entropy_to_the_smaller_value(monkeypatch):
    """Values 5 and 4, alpha 0.2, log-probability -1, reward 1 and discount 0.9: 4.78."""
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.zeros(shape))
    batch = make_batch(SPEC)[0]._replace(reward=jnp.ones(N), next_obs=jnp.zeros((N, 2)))
    config = make_config(SACConfig, initial_alpha=0.2)

    def change(learned):
        target = {"params": {"value": jnp.array([5.0, 4.0])}}
        return learned._replace(target_params=target)

    class Policy(GaussianPolicy):
        """Mean 0, and the standard deviations with log-probability -1 there."""

        def __call__(self, obs):
            mean, log_std = super().__call__(obs)
            log_std = 0.0 * log_std + 0.5 - 0.5 * np.log(2 * np.pi)
            return 0.0 * mean, log_std

    agent = make_agent(config, batch, policy=Policy(), critic=ConstantCritic())
    states, _ = updates(agent, SPEC, 1, change)
    expected = np.where(batch.terminated, 1.0, 4.78)
    np.testing.assert_allclose(states[1].replay[0], expected, rtol=1e-6)


@pytest.mark.parametrize(("target_entropy", "sign"), [(-10.0, -1.0), (10.0, 1.0)])
def test_alpha_falls_where_the_entropy_is_above_its_target(target_entropy, sign):
    """The first step of Adam is the learning rate; the target is the option times 2."""
    config = make_config(
        SACConfig, initial_alpha=0.4, alpha_learning_rate=0.05,
        target_entropy_per_dimension=target_entropy,
    )  # fmt: skip
    states, metrics = updates(make_agent(config), SPEC, 1)
    assert abs(metrics[0]["losses/entropy"]) < 10
    change = float(states[1].params.log_alpha) - np.log(0.4)
    np.testing.assert_allclose(change, 0.05 * sign, rtol=1e-4)


def test_a_learning_rate_of_0_keeps_alpha_fixed():
    config = make_config(SACConfig, initial_alpha=0.4, alpha_learning_rate=0.0)
    states, metrics = updates(make_agent(config), SPEC, 3)
    assert [row["losses/alpha"] for row in metrics] == pytest.approx([0.4] * 3, rel=1e-6)
    assert float(states[3].params.log_alpha) == float(states[0].params.log_alpha)


def test_actions_are_samples_of_the_policy_and_greedy_is_its_mean():
    """After the warm-up, in the box of the environment."""
    num_envs = 4000
    spec = SPEC._replace(num_envs=num_envs)
    options = {"num_envs": num_envs, "num_steps": 1, "buffer_size": num_envs, "learning_starts": 6}
    config = make_config(SACConfig, **options | {"total_timesteps": num_envs})
    agent = sac(config, spec, policy=GaussianPolicy(), critic=QuadraticCritic())
    state = agent.init(jax.random.key(0))
    state = state._replace(env_steps=state.env_steps._replace(value=jnp.int32(6)))
    obs = jnp.tile(jnp.array([[0.8, -1.2]]), (num_envs, 1))
    action, extras = agent.act(state, obs, sample_one(agent.sample_noise, jax.random.key(1)))
    greedy = agent.greedy(state, obs, jax.random.key(2))
    assert extras == ()
    low, high = np.asarray(SPEC.action_low), np.asarray(SPEC.action_high)
    actor = float64(state.params.actor["params"])
    mean, log_std = (np.array([0.8, -1.2]) @ actor[name] for name in ("mean", "log_std"))
    center = low + (np.tanh(mean) + 1) / 2 * (high - low)
    np.testing.assert_allclose(greedy, np.broadcast_to(center, (num_envs, 2)), rtol=1e-5)
    u = np.arctanh(2 * (np.asarray(action, np.float64) - low) / (high - low) - 1)
    for i in range(2):
        normal = stats.norm(mean[i], np.exp(log_std[i] - 0.5))
        assert stats.kstest(u[:, i], normal.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(u.T)[0, 1]) < 0.06
