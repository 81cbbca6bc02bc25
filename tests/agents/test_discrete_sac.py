"""SAC for discrete actions against gradient steps computed by hand in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_networks import (
    DISCRETE,
    Adam,
    LinearActionValues,
    LinearPolicy,
    N,
    assert_trees_close,
    float64,
    importance_weight,
    make_batch,
    make_config,
    replay_of,
    updates,
)
from scipy.special import log_softmax, softmax

from rljax.agents.discrete_sac import DiscreteSACConfig, discrete_sac
from rljax.types import sample_one

pytestmark = pytest.mark.usefixtures("quick_compiles")

CONFIG = make_config(DiscreteSACConfig, initial_alpha=0.4, alpha_learning_rate=0.05)
ACTOR_RATE, CRITIC_RATE = 0.2, 0.1


def make_agent(config=CONFIG, batch=None):
    batch = make_batch(DISCRETE)[0] if batch is None else batch
    return discrete_sac(
        config, DISCRETE, policy=LinearPolicy(3), critic=LinearActionValues(),
        replay=replay_of(batch), actor_optimizer=optax.sgd(ACTOR_RATE),
        critic_optimizer=optax.sgd(CRITIC_RATE),
    )  # fmt: skip


def gradient_step(learned, data, weight, adam, tau=0.25):
    """Equations 10 to 12 with plain gradient descent, and Adam for log alpha."""
    actor, critics, target, log_alpha = learned
    alpha, rows = np.exp(log_alpha), np.arange(N)
    logits = data.next_obs @ actor
    next_q = np.minimum(*(data.next_obs @ w for w in target))
    next_value = (softmax(logits, 1) * (next_q - alpha * log_softmax(logits, 1))).sum(axis=1)
    td_target = data.td_target(next_value)
    chosen = np.eye(3)[data.action]
    q = np.stack([(data.obs @ w)[rows, data.action] for w in critics])
    td_error = td_target - q
    metrics = {
        "losses/critic_loss": (weight * td_error**2 / 2).mean(axis=1).sum(),
        "losses/q_value": q.mean(),
    }
    critics = critics + CRITIC_RATE * np.stack(
        [data.obs.T @ (chosen * (weight * error)[:, None]) / N for error in td_error]
    )
    logits = data.obs @ actor
    probability, log_prob = softmax(logits, 1), log_softmax(logits, 1)
    cost = alpha * log_prob - np.minimum(*(data.obs @ w for w in critics))
    mean_cost = (probability * cost).sum(axis=1, keepdims=True)
    actor = actor - ACTOR_RATE * data.obs.T @ (probability * (cost - mean_cost)) / N
    entropy = -(probability * log_prob).sum(axis=1).mean()
    metrics |= {
        "losses/policy_loss": mean_cost.mean(), "losses/entropy": entropy, "losses/alpha": alpha
    }  # fmt: skip
    log_alpha = log_alpha + adam.step(alpha * (entropy - 0.98 * np.log(3)))
    target = tau * critics + (1 - tau) * target
    return (actor, critics, target, log_alpha), td_error, metrics


def learned_of(state):
    params, target = state.params, state.learned.target_params
    networks = params.actor, params.critic, target
    return float64((*(x["params"]["w"] for x in networks), params.log_alpha))


@pytest.mark.parametrize("discount", [None, 0.729])
def test_updates_equal_gradient_steps_computed_by_hand(discount):
    """With importance weights and, in one case, the discounts of n-step replay."""
    batch, data = make_batch(DISCRETE, discount)
    states, metrics = updates(make_agent(batch=batch), DISCRETE, 3)
    learned, adam = learned_of(states[0]), Adam(0.05)
    for update in range(3):
        learned, td_error, expected = gradient_step(learned, data, importance_weight(update), adam)
        assert_trees_close(learned_of(states[update + 1]), learned)
        replay = states[update + 1].replay
        np.testing.assert_allclose(replay[0], np.abs(td_error).mean(axis=0), rtol=1e-4)
        losses = {name: metrics[update][name] for name in expected}
        assert losses == pytest.approx(expected, rel=1e-4)


def test_the_target_entropy_is_a_fraction_of_that_of_a_uniform_policy():
    """0.98 log 3 is 1.076640: read from the first moment of Adam, 0.1 alpha (entropy - target)."""

    def change(learned):
        uniform = jax.tree.map(jnp.zeros_like, learned.params.actor)
        return learned._replace(params=learned.params._replace(actor=uniform))

    states, metrics = updates(make_agent(), DISCRETE, 1, change)
    assert metrics[0]["losses/entropy"] == pytest.approx(np.log(3), rel=1e-5)
    moment = float(states[1].learned.opt_state.log_alpha[0].mu)
    assert np.log(3) - moment / 0.1 / 0.4 == pytest.approx(1.076640, rel=1e-5)
    assert states[1].params.log_alpha < states[0].params.log_alpha


def test_actions_are_uniform_in_the_warmup_and_samples_of_the_policy_after_it():
    num_envs = 20_000
    spec = DISCRETE._replace(num_envs=num_envs)
    options = {"num_envs": num_envs, "num_steps": 1, "buffer_size": num_envs}
    config = make_config(DiscreteSACConfig, **options | {"total_timesteps": num_envs})
    agent = discrete_sac(config, spec, policy=LinearPolicy(3), critic=LinearActionValues())
    state = agent.init(jax.random.key(0))
    obs = jnp.tile(jnp.array([[2.0, -3.0]]), (num_envs, 1))
    probability = softmax(np.array([2.0, -3.0]) @ float64(state.params.actor["params"]["w"]))
    assert np.ptp(probability) > 0.2
    for env_steps, expected in ((5, np.full(3, 1 / 3)), (6, probability)):
        state = state._replace(env_steps=state.env_steps._replace(value=jnp.int32(env_steps)))
        noise = sample_one(agent.sample_noise, jax.random.key(env_steps))
        action, extras = agent.act(state, obs, noise)
        assert extras == () and action.dtype == jnp.int32
        frequency = np.bincount(action, minlength=3) / num_envs
        np.testing.assert_allclose(frequency, expected, atol=4 * 0.5 / np.sqrt(num_envs))
        greedy = agent.greedy(state, obs, jax.random.key(0))
        assert (np.asarray(greedy) == probability.argmax()).all()
