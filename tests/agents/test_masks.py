"""Action masks: an illegal action is never taken, bootstrapped from, or given probability."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from masked_environments import (
    LEGAL,
    NUM_ACTIONS,
    NUM_STATES,
    all_states,
    masked_process,
    matching,
    score,
)

import rljax
from rljax import networks
from rljax.agents import AGENTS
from rljax.agents.ppo import PPOConfig, ppo
from rljax.agents.ppo_loss import ppo_loss
from rljax.config import from_mapping
from rljax.networks import policies
from rljax.ops import td
from rljax.ops.epsilon_greedy import epsilon_greedy_policy, epsilon_greedy_value
from rljax.types import params_of

SMALL = {"hidden_sizes": (32,)}
BARE = {"normalize_obs": False, "normalize_reward": False}
PPO = {"learning_rate": 2e-3, "num_minibatches": 4}
REPLAY = SMALL | {
    "num_envs": 8, "num_steps": 2, "train_frequency": 16, "batch_size": 64, "buffer_size": 50_000,
    "target_update_interval": 500, "n_step": 1, "anneal_lr": False, "eps_end": 0.05,
    "exploration_repeat": 1, "normalize_obs": False,
}  # fmt: skip
LEARNING = {
    "ppo": SMALL | BARE | PPO | {"num_envs": 8, "num_steps": 32, "update_epochs": 4},
    "a2c": SMALL | BARE | {"num_envs": 8, "num_steps": 8},
    "dqn": REPLAY,
    "c51": REPLAY | {"v_min": -25.0, "v_max": 0.0},
    "sarsa": {"eps_start": 0.2, "eps_end": 0.01},
}  # fmt: skip
DISCRETE = [
    name for name, row in AGENTS.items() if "discrete" in row.actions
    and row.update_unit != "sweep"
]  # fmt: skip
PREDICTED = {"mbpo", "pets"}  # agents whose model predicts observations and cannot predict a mask


def greedy_actions(name, options, result):
    """Returns the greedy actions of every seed in all states, `[seeds, S]`."""
    spec = rljax.build(masked_process(), NUM_STATES).spec
    agent = AGENTS[name].make(from_mapping(AGENTS[name].config, options), spec)
    greedy = jax.vmap(lambda state: agent.greedy(state, all_states(), jax.random.key(0)))
    return np.asarray(jax.jit(greedy)(result.state.agent))


@pytest.mark.parametrize("name", LEARNING)
def test_agents_learn_and_take_no_illegal_action_in_100_000_steps(name):
    options = LEARNING[name] | {"gamma": 0.9}
    result = rljax.train(
        name, masked_process(), num_seeds=4, total_timesteps=100_000, progress=False,
        num_reports=2, eval_episodes=20, **options,
    )  # fmt: skip
    assert np.isfinite(result.evaluation["returns"]).all()
    actions = greedy_actions(name, options, result)
    assert LEGAL[np.arange(NUM_STATES)[None], actions].all()
    scores = [score(each) for each in actions]
    assert (np.array(scores) > 0.9).sum() >= 3, scores


@pytest.mark.parametrize("name", sorted(PREDICTED))
def test_models_of_observations_refuse_a_mask(name):
    with pytest.raises(ValueError, match="one array of floats, but those of masked are"):
        rljax.train(name, masked_process(), progress=False)


@pytest.mark.parametrize("name", sorted(set(DISCRETE) - set(LEARNING) - PREDICTED))
def test_every_agent_respects_the_mask(name):
    fields = AGENTS[name].config.__dataclass_fields__
    options = {"total_timesteps": 2_000, "num_envs": 4, "hidden_sizes": (8,), "num_steps": 4}
    options |= {"learning_starts": 100, "num_minibatches": 2, "batch_size": 16, "noisy": False}
    options = {key: value for key, value in options.items() if key in fields}
    result = rljax.train(
        name, masked_process(), progress=False, num_reports=1, eval_episodes=0, **options
    )
    if name != "alphazero":  # which observes the state of its model
        assert LEGAL[np.arange(NUM_STATES)[None], greedy_actions(name, options, result)].all()
    table = getattr(params_of(result.state.agent), "q", None)
    if table is not None:  # of visited states, illegal actions have the value -inf
        marked = np.isneginf(table)
        assert (marked == ~LEGAL[None])[marked.any(axis=-1)].all() and marked.any()


def test_planning_with_a_model_refuses_masks():
    with pytest.raises(ValueError, match="needs a model"):
        rljax.train("value_iteration", masked_process(), progress=False)


def test_the_first_ratio_of_ppo_is_exactly_1():
    env = rljax.build(masked_process(), 4)
    config = PPOConfig(num_envs=4, num_steps=16, update_epochs=1, num_minibatches=1)

    def loss(network, config, params, batch, *args):
        policy, _ = network.apply(params, batch.obs)
        ratio = jnp.exp(policy.log_prob(batch.raw_action) - batch.old_log_prob)
        total, metrics = ppo_loss(network, config, params, batch, *args)
        return total, {**metrics, "ratio_error": jnp.abs(ratio - 1.0).max()}

    learner = rljax.make_learner(ppo(config, env.spec, loss=loss), env, 16)
    _, metrics = jax.jit(learner.step)(jax.jit(learner.init)(jax.random.key(0)))
    assert float(metrics["ratio_error"]) == 0.0
    assert float(metrics["losses/kl"]) == 0.0


def test_masked_policies_are_those_of_the_legal_actions_alone():
    """Log-probabilities, entropy, KL and their gradients, against a policy without the others."""
    legal = np.array([True, False, True, True, False])
    logits, other = jax.random.normal(jax.random.key(0), (2, 5))

    def quantities(logits, other, mask):
        policy, before = (policies.like((x,)) for x in (logits, other))
        if mask is not None:
            policy, before = (policies.with_legal_actions(p, mask) for p in (policy, before))
        return policy.log_prob(0), policy.entropy(), before.kl_divergence(policy)

    for i in range(3):
        value = jax.value_and_grad(lambda x: quantities(x, other, jnp.array(legal))[i])
        reduced = jax.value_and_grad(lambda x: quantities(x, other[legal], None)[i])
        (a, gradient), (b, expected) = value(logits), reduced(logits[legal])
        np.testing.assert_allclose(a, b, rtol=1e-6)
        np.testing.assert_allclose(gradient[legal], expected, atol=1e-6)
        np.testing.assert_allclose(np.asarray(gradient)[~legal], 0, atol=1e-7)


def test_illegal_actions_are_left_out_of_epsilon_greedy_and_expectations():
    q = jnp.array([1.0, -jnp.inf, 3.0, -jnp.inf])
    uniform = jax.random.uniform(jax.random.key(0), (4000, 5))
    values = jnp.broadcast_to(q, (4000, 4))
    actions = np.asarray(td.epsilon_greedy(values, 0.5, uniform[:, 0], uniform[:, 1:]))
    frequency = np.bincount(actions, minlength=4) / 4000
    np.testing.assert_allclose(frequency, [0.25, 0, 0.75, 0], atol=0.03)
    np.testing.assert_allclose(epsilon_greedy_policy(q[None], 0.5)[0], [0.25, 0, 0.75, 0])
    assert float(epsilon_greedy_value(q, 0.5)) == 2.5


def test_a_state_without_a_legal_action_is_named():
    env = masked_process()

    def reset(key):
        state, obs = env.reset(key)
        return state, obs | {"legal": jnp.zeros(NUM_ACTIONS, bool)}

    with pytest.raises(ValueError, match=r"masked: the observation after `reset` has no legal"):
        rljax.train("ppo", env._replace(reset=reset), progress=False)


@pytest.mark.parametrize("name", ["ppo", "dqn", "sarsa"])
def test_a_state_without_a_legal_action_stops_training(name, monkeypatch):
    env = masked_process()

    def step(state, action, noise):
        state, step = env.step(state, action, noise)
        is_late = state.env.time > 15
        legal = step.obs["legal"] & ~is_late
        reward = jnp.nan_to_num(step.reward)  # the last action is illegal
        return state, step._replace(obs=step.obs | {"legal": legal}, reward=reward)

    options = {"num_envs": 4, "total_timesteps": 4_000, "eval_episodes": 0, "progress": False}
    monkeypatch.setattr(rljax.envs, "validate", lambda env: None)  # as for a suite
    with pytest.raises(FloatingPointError, match="masked reached a state without a legal action"):
        rljax.train(name, env._replace(step=step), **options)


# Several discrete actions at once


def joint_policy(logits):
    """The product distribution over all combinations, in float64."""
    probabilities = [
        np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in map(np.float64, logits)
    ]
    combinations = list(itertools.product(*(range(len(p)) for p in probabilities)))
    joint = [np.prod([p[a] for p, a in zip(probabilities, c, strict=True)]) for c in combinations]
    return np.array(combinations), np.array(joint)


def test_multi_categorical_is_the_product_of_its_factors():
    keys = jax.random.split(jax.random.key(0), 2)
    logits, other = (
        (jax.random.normal(key, (3,)), jax.random.normal(key, (4,)) + 1) for key in keys
    )
    policy, before = networks.MultiCategorical(logits), networks.MultiCategorical(other)
    combinations, joint = joint_policy(logits)
    _, joint_before = joint_policy(other)
    log_prob = jax.vmap(policy.log_prob)(jnp.asarray(combinations))
    np.testing.assert_allclose(log_prob, np.log(joint), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), -(joint * np.log(joint)).sum(), rtol=1e-5)
    kl = (joint_before * np.log(joint_before / joint)).sum()
    np.testing.assert_allclose(before.kl_divergence(policy), kl, rtol=1e-4)
    assert policy.mode().tolist() == combinations[joint.argmax()].tolist()
    gumbel = jax.random.gumbel(jax.random.key(1), (20_000, 7))
    samples = jax.vmap(lambda noise: policies.sample(policy, noise))(gumbel)
    codes = np.asarray(samples) @ np.array([4, 1])
    np.testing.assert_allclose(np.bincount(codes, minlength=12) / 20_000, joint, atol=0.015)


MULTI = [
    name for name, row in AGENTS.items()
    if row.family == "policy gradient" and "continuous" in row.actions
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "mask"), [*((name, True) for name in MULTI), ("ppo", False), ("reinforce", False)]
)
def test_agents_learn_several_actions_at_once(name, mask):
    fields = AGENTS[name].config.__dataclass_fields__
    options = {"num_envs": 16, "hidden_sizes": (32,), "learning_rate": 3e-3, "gamma": 0.5} | BARE
    if issubclass(AGENTS[name].config, PPOConfig):
        options |= {"num_steps": 64, "num_minibatches": 4}
    result = rljax.train(
        name, matching((3, 4), mask), num_seeds=4, total_timesteps=40_000, progress=False,
        num_reports=1, eval_episodes=8,
        **{key: value for key, value in options.items() if key in fields},
    )  # fmt: skip
    returns = result.evaluation["returns"].mean(axis=-1)  # of 8 steps; 2.3 at random
    assert (returns > 6.5).sum() >= 3, returns


@pytest.mark.parametrize("name", ["dqn", "c51", "pqn", "discrete_sac"])
def test_action_values_refuse_several_actions_at_once(name):
    with pytest.raises(
        ValueError, match=r"action values need one discrete action, but matching has several"
    ):
        rljax.train(name, matching((3, 4)), progress=False)
