"""What agents learn in probe environments, whose values and best policies are known.

The value functions are compared with fixed points of each algorithm's targets, so that an error
in bootstrapping, discounting or credit assignment shows as a wrong number.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, LEARNERS, NO_VALUES
from probes import ARM, CONSTANT, DELAYED, MATCH, OBSERVED, TARGET, box, probe, with_memory
from scipy.special import softmax
from scipy.stats import entropy

from rljax import networks
from rljax.agents import AGENTS, continuous
from rljax.config import field_types
from rljax.envs import wrappers
from rljax.networks import action_values, muzero
from rljax.networks.continuous import Critic, DeterministicPolicy, SquashedGaussianPolicy
from rljax.networks.residual import ResidualCritic, ResidualPolicy, ResidualTorso
from rljax.ops.value_supports import from_support, signed_hyperbolic, signed_parabolic
from rljax.replay import ring
from rljax.training.learner import make_learner, train
from rljax.types import identity, params_of

pytestmark = pytest.mark.usefixtures("quick_compiles")

GAMMA, TRACE_LAMBDA = 0.9, 0.95
PROBES = {  # kind, length of episodes, whether they terminate
    "constant": (CONSTANT, 1, True),
    "observed": (OBSERVED, 1, True),
    "delayed": (DELAYED, 2, True),
    "arm": (ARM, 1, True),
    "match": (MATCH, 1, True),
    "truncated after 8": (CONSTANT, 8, False),
    "truncated after 40": (CONSTANT, 40, False),
    "terminated after 8": (CONSTANT, 8, True),
}


class Family(NamedTuple):
    """Agents that are trained and read in the same way.

    Attributes:
      options: config values.
      pieces: `(spec) -> arguments of the maker`.
      value: `(pieces, params, obs[N]) -> value[N]`.
      policy: `(pieces, params, obs[N]) -> [N]`, the probability of action 1, or the continuous
        action; None for agents that predict the values of a given policy.
      terminated_value: the learned value of "terminated after 8"; None for a deterministic model,
        which cannot represent that only the last of eight equal steps terminates.
      continuous: the actions are continuous.
    """

    options: dict[str, Any]
    pieces: Callable[..., dict[str, Any]]
    value: Callable[..., Any]
    policy: Callable[..., Any] | None
    terminated_value: Callable[[], float] | None
    continuous: bool = False


def gae_value():
    """The fixed point of GAE value targets if the last of eight steps terminates."""
    value = 0.0
    for _ in range(200):
        advantage, advantages = 0.0, []
        for steps_left in range(1, 9):
            delta = 1.0 + (GAMMA * value if steps_left > 1 else 0.0) - value
            advantage = delta + GAMMA * TRACE_LAMBDA * advantage
            advantages.append(advantage)
        value += np.mean(advantages)
    return value


def n_step_value(n):
    """The fixed point of n-step targets, averaged over eight steps, the last of which terminates.

    A step with more than n steps left bootstraps from the same value.
    """
    steps_left = np.arange(1, 9)
    rewards = (1 - GAMMA ** np.minimum(steps_left, n)) / (1 - GAMMA)
    return rewards.mean() / (1 - GAMMA**n * (steps_left > n).mean())


def quantile_value():
    """The mean of the fixed point of quantile targets if one of eight steps terminates."""
    count = VALUE_BASED["num_quantiles"]
    midpoints, quantiles = (np.arange(count) + 0.5) / count, np.zeros(count)
    for _ in range(500):
        targets = np.concatenate([np.ones(count), *[1 + GAMMA * quantiles] * 7])
        quantiles = np.quantile(targets, midpoints, method="inverted_cdf")
    return quantiles.mean()


# Tables

TABLE = {
    "total_timesteps": 40_000,
    "learning_rate": 0.01,
    "n_step": 4,
    "trace_lambda": TRACE_LAMBDA,
}
TRACES = TABLE | {"trace": "accumulating"}
ONE_STEP = TABLE | {"n_step": 1, "trace_lambda": 0.0}  # off-policy agents cut longer returns


def table_family(options, terminated_value, state_values=False):
    def no_pieces(spec):
        return {}

    def q_value(pieces, params, obs):
        return params.q[obs].max(axis=-1)

    def v_value(pieces, params, obs):
        return params.v[obs]

    def probability(pieces, params, obs):
        q = params.q[obs]
        return (q[:, 1] > q[:, 0]).astype(jnp.float32)

    if state_values:
        return Family(options, no_pieces, v_value, None, terminated_value)
    return Family(options, no_pieces, q_value, probability, terminated_value)


# Policies with a value function

POLICY = {
    "num_envs": 4, "num_steps": 16, "total_timesteps": 4 * 16 * 400, "learning_rate": 0.02,
    "update_epochs": 2, "num_minibatches": 1, "max_grad_norm": 10.0, "normalize_obs": False,
    "normalize_reward": False,
}  # fmt: skip


def policy_family(terminated_value, options=POLICY):
    def pieces(spec):
        return {"network": networks.actor_critic_network(spec, (8,), "tanh")}

    def value(pieces, params, obs):
        return pieces["network"].apply(params, obs)[1]

    def probability(pieces, params, obs):
        return pieces["network"].apply(params, obs)[0].probs[:, 1]

    return Family(options, pieces, value, probability, terminated_value)


# Action values

VALUE_BASED = {
    "num_envs": 4, "num_steps": 8, "total_timesteps": 4 * 8 * 800, "learning_rate": 0.01,
    "anneal_lr": True, "buffer_size": 2048, "batch_size": 32, "learning_starts": 256,
    "train_frequency": 8, "target_update_interval": 64, "trace_lambda": TRACE_LAMBDA,
    "v_min": -2.0, "v_max": 12.0, "num_atoms": 29, "num_quantiles": 40, "kappa": 0.0,
    "update_epochs": 2, "num_minibatches": 1, "exploration_fraction": 0.5, "eps_end": 0.2,
    "normalize_obs": False,
}  # fmt: skip


def value_family(terminated_value, mean=identity, num_outputs=0, layer_norm=False, **options):
    """Agents whose network outputs action values, or distributions with the given `mean`."""

    def pieces(spec):
        network = action_values.q_network(
            spec, (8,), "tanh", num_outputs=num_outputs, layer_norm=layer_norm
        )
        return {"network": network}

    def value(pieces, params, obs):
        return mean(pieces["network"].apply(params, obs)).max(axis=-1)

    def probability(pieces, params, obs):
        q = mean(pieces["network"].apply(params, obs))
        return (q.argmax(axis=-1) == 1).astype(jnp.float32)

    return Family(VALUE_BASED | options, pieces, value, probability, terminated_value)


def categorical_mean(logits):
    atoms = jnp.linspace(VALUE_BASED["v_min"], VALUE_BASED["v_max"], VALUE_BASED["num_atoms"])
    return (jax.nn.softmax(logits) * atoms[None, None]).sum(axis=-1)


def quantile_mean(quantiles):
    return quantiles.mean(axis=-1)


# Policies with action values

OFF_POLICY = VALUE_BASED | {
    "batch_size": 64, "tau": 0.1, "target_update_interval": 8, "noise": "gaussian",
    "noise_std": 0.4,
}  # fmt: skip


def annealed_adam(learning_rate):
    """Adam with a learning rate annealed linearly over all gradient steps."""
    num_steps = (OFF_POLICY["total_timesteps"] - 256) // OFF_POLICY["train_frequency"]
    return optax.adam(optax.linear_schedule(learning_rate, 0.0, num_steps))


def optimizers():
    return {"actor_optimizer": annealed_adam(0.003), "critic_optimizer": annealed_adam(0.01)}


def continuous_family(make_policy, action_of, ensemble, make_critic=Critic, **options):
    """Agents with a policy and critics of continuous actions; values at the policy's action."""

    def pieces(spec):
        networks = {"policy": make_policy(1, (8,), "tanh"), "critic": make_critic((16,), "tanh")}
        return networks | optimizers()

    def action(pieces, params, obs):
        return action_of(pieces["policy"].apply(params.actor, obs))

    def value(pieces, params, obs):
        inputs = obs, action(pieces, params, obs)
        if not ensemble:
            return pieces["critic"].apply(params.critic, *inputs)
        return continuous.make_critics(pieces["critic"], 2).q_values(params.critic, *inputs).mean(0)

    def policy(pieces, params, obs):
        return 2.0 * action(pieces, params, obs)[:, 0]  # the box of the probes is [-2, 2]

    options = OFF_POLICY | options
    return Family(options, pieces, value, policy, lambda: n_step_value(1), continuous=True)


def tanh_of_mean(outputs):
    return jnp.tanh(outputs[0])


def residual_policy(size, hidden_sizes, activation):
    return ResidualPolicy(ResidualTorso(hidden_sizes, activation), size)


def residual_critic(hidden_sizes, activation):
    return ResidualCritic(ResidualTorso(hidden_sizes, activation))


FALLING_ALPHA = {"initial_alpha": 0.1, "alpha_learning_rate": 0.002}


def discrete_sac_family(terminated_value, **options):
    def pieces(spec):
        network = action_values.q_network(spec, (8,), "tanh")
        return {"policy": network, "critic": network} | optimizers()

    def probabilities(pieces, params, obs):
        return jax.nn.softmax(pieces["policy"].apply(params.actor, obs))

    def value(pieces, params, obs):
        q = continuous.make_critics(pieces["critic"], 2).q_values(params.critic, obs).mean(0)
        return (probabilities(pieces, params, obs) * q).sum(axis=-1)

    def policy(pieces, params, obs):
        return probabilities(pieces, params, obs)[:, 1]

    options = OFF_POLICY | {"initial_alpha": 1e-3, "alpha_learning_rate": 0.0} | options
    return Family(options, pieces, value, policy, terminated_value)


IMAGINATION = {
    "gradient_steps": 1, "real_batch_size": 4, "num_rollouts": 1024, "imagined_buffer_size": 8192,
    "model_train_frequency": 4096, "model_hidden_sizes": (16, 16), "num_models": 2, "num_elites": 2,
    "model_batch_size": 128, "model_max_epochs": 40, "rollout_length": 2, "final_rollout_length": 2,
}  # fmt: skip
MUZERO = VALUE_BASED | {
    "num_simulations": 4, "unroll_steps": 2, "n_step": 3, "support_size": 4, "vf_coef": 1.0,
    "activation": "tanh", "hidden_sizes": (16,), "weight_decay": 0.0, "learning_rate": 0.005,
    "total_timesteps": 4 * 8 * 500,
}  # fmt: skip


def muzero_network(spec):
    return muzero.muzero_network(spec, MUZERO["support_size"], MUZERO["hidden_sizes"], "tanh")


def muzero_outputs(pieces, params, obs):
    """Returns the policy logits and the values of the root states."""
    network = pieces["network"]
    state = network.apply(params, obs, method="represent")
    logits, value_logits = network.apply(params, state, method="predict")
    return logits, from_support(value_logits)


def muzero_value():
    """The fixed point of 3-step targets, of which the network learns the mean of h(z)."""
    value, steps_left = 1.0, np.arange(1, 9)
    for _ in range(200):
        rewards = (1 - GAMMA ** np.minimum(steps_left, 3)) / (1 - GAMMA)
        targets = rewards + GAMMA**3 * value * (steps_left > 3)
        mean = signed_hyperbolic(jnp.float32(targets)).mean()
        value = float(signed_parabolic(mean))
    return value


def muzero_family():
    def pieces(spec):
        return {"network": muzero_network(spec)}

    def value(pieces, params, obs):
        return muzero_outputs(pieces, params, obs)[1]

    def policy(pieces, params, obs):
        return jax.nn.softmax(muzero_outputs(pieces, params, obs)[0])[:, 1]

    return Family(MUZERO, pieces, value, policy, muzero_value)


SEARCH = VALUE_BASED | {
    "num_steps": 16, "trace_lambda": 1.0, "num_simulations": 4, "gradient_steps": 1,
}  # fmt: skip
NUM_ATOMS, NUM_QUANTILES = VALUE_BASED["num_atoms"], VALUE_BASED["num_quantiles"]
FAMILIES = {
    "one-step Q": table_family(ONE_STEP, lambda: n_step_value(1)),
    "n-step Q": table_family(TABLE, lambda: n_step_value(4)),
    "Q(lambda)": table_family(TRACES, gae_value),
    "model": table_family(TABLE, None),
    "TD(0)": table_family(TABLE, lambda: n_step_value(1), state_values=True),
    "n-step TD": table_family(TABLE, lambda: n_step_value(4), state_values=True),
    "TD(lambda)": table_family(TRACES, gae_value, state_values=True),
    "one-step policy": policy_family(lambda: n_step_value(1)),
    "GAE policy": policy_family(gae_value),
    "Monte Carlo policy": policy_family(lambda: n_step_value(8)),
    "DQN": value_family(lambda: n_step_value(1), n_step=1),
    "PQN": value_family(gae_value, layer_norm=True),
    "C51": value_family(lambda: n_step_value(1), categorical_mean, NUM_ATOMS, n_step=1),
    "Rainbow": value_family(lambda: n_step_value(3), categorical_mean, NUM_ATOMS, n_step=3),
    "QR-DQN": value_family(quantile_value, quantile_mean, NUM_QUANTILES, batch_size=16, n_step=1),
    "DDPG": continuous_family(DeterministicPolicy, identity, ensemble=False),
    "TD3": continuous_family(DeterministicPolicy, identity, ensemble=True),
    # alpha falls, so that values are nearly those without entropy
    "SAC": continuous_family(SquashedGaussianPolicy, tanh_of_mean, ensemble=True, **FALLING_ALPHA),
    "SimBa": continuous_family(
        residual_policy,
        tanh_of_mean,
        ensemble=True,
        make_critic=residual_critic,
        normalize_obs=False,
        **FALLING_ALPHA,
    ),
    "AlphaZero": policy_family(lambda: n_step_value(8), SEARCH),
    "discrete SAC": discrete_sac_family(lambda: n_step_value(1)),
    "MBPO": discrete_sac_family(None, **IMAGINATION),
    "MuZero": muzero_family(),
}


class Learned(NamedTuple):
    """What an agent has learned in each probe environment, for observations -1, 0 and 1.

    Attributes:
      family: the agent's family.
      value: values `[3]` by name of the probe.
      policy: probabilities of action 1, or actions, `[3]` by name of the probe; None for
        prediction.
    """

    family: Family
    value: dict[str, Any]
    policy: dict[str, Any] | None


def make_config(name, family, **options):
    options = {"gamma": GAMMA, "gae_lambda": TRACE_LAMBDA} | family.options | options
    config = AGENTS[name].config
    known = field_types(config)
    return config(**{k: v for k, v in options.items() if k in known})


def train_in(name, family, config, env):
    """Trains an agent; returns it, its final state and its pieces."""
    env = wrappers.batched(with_memory(AGENTS[name], config, env), config.num_envs)
    pieces = family.pieces(env.spec)
    agent = AGENTS[name].make(config, env.spec, **pieces)
    learner = make_learner(agent, env, config.num_steps)
    state, _ = train(learner, jax.random.key(0), config.num_updates)
    return agent, state.agent, pieces


@pytest.fixture(
    scope="module", params=[name for name in LEARNERS if CASES[name].family != NO_VALUES]
)
def learned(request):
    name, row = request.param, AGENTS[request.param]
    family = FAMILIES[CASES[name].family]
    config = make_config(name, family)

    def run(kind, length, terminates):
        env = probe(kind, length, terminates, row.tabular, family.continuous)
        _, state, pieces = train_in(name, family, config, env)
        obs = jnp.arange(3) if row.tabular else jnp.array([[-1.0], [0.0], [1.0]])
        outputs = [family.value(pieces, params_of(state), obs)]
        if family.policy:
            outputs.append(family.policy(pieces, params_of(state), obs))
        return outputs

    columns = [jnp.array(column) for column in zip(*PROBES.values(), strict=True)]
    value, *policy = jax.jit(jax.vmap(run))(*columns)
    return Learned(
        family,
        dict(zip(PROBES, value, strict=True)),
        dict(zip(PROBES, policy[0], strict=True)) if policy else None,
    )


def test_values_are_those_of_the_discounted_rewards(learned):
    np.testing.assert_allclose(learned.value["constant"][1], 1.0, atol=0.02)
    observed = learned.value["observed"][jnp.array([0, 2])]
    np.testing.assert_allclose(observed, [-1.0, 1.0], atol=0.05)
    np.testing.assert_allclose(learned.value["delayed"][1:], [GAMMA, 1.0], atol=0.05)


def test_policies_choose_the_best_action(learned):
    if learned.policy is None:
        pytest.skip("the agent predicts the values of a given policy")
    arm, match = learned.policy["arm"][1], learned.policy["match"][jnp.array([0, 2])]
    if learned.family.continuous:
        np.testing.assert_allclose(arm, TARGET, atol=0.1)
        np.testing.assert_allclose(match, [-1.0, 1.0], atol=0.1)
    else:
        assert arm > 0.95 and match[0] < 0.05 and match[1] > 0.95


@pytest.mark.parametrize("length", [8, 40])
def test_truncation_bootstraps_from_the_next_value(learned, length):
    value = learned.value[f"truncated after {length}"][1]
    np.testing.assert_allclose(value, 1 / (1 - GAMMA), rtol=0.02)


def test_terminal_states_are_not_bootstrapped(learned):
    if learned.family.terminated_value is None:
        pytest.skip("the agent's model is deterministic")
    expected = learned.family.terminated_value()
    assert expected < 6
    np.testing.assert_allclose(learned.value["terminated after 8"][1], expected, rtol=0.03)


def test_ppo_learns_the_best_continuous_actions():
    family = FAMILIES["GAE policy"]
    config = make_config("ppo", family, gae_lambda=0.0)

    def run(kind):
        env = probe(kind, 1, continuous=True)
        agent, state, _ = train_in("ppo", family, config, env)
        return agent.greedy(state, jnp.array([[-1.0], [0.0], [1.0]]), jax.random.key(0))[:, 0]

    arm, match = jax.jit(jax.vmap(run))(jnp.array([ARM, MATCH]))
    np.testing.assert_allclose(arm[1], TARGET, atol=0.1)
    np.testing.assert_allclose(match[jnp.array([0, 2])], [-1.0, 1.0], atol=0.1)


def squashed_entropy(mean, std):
    """The entropy of tanh(u), u normal, by Gauss-Hermite quadrature in float64."""
    x, weight = np.polynomial.hermite_e.hermegauss(200)
    log_derivative = -2.0 * np.log(np.cosh(mean + std * x))
    return 0.5 * np.log(2 * np.pi * np.e * std**2) + (weight / weight.sum()) @ log_derivative


def entropy_of(name, outputs):
    """The entropy of a policy in a state, of what its network outputs there."""
    if name == "sac":
        mean, log_std = (np.float64(x[0]) for x in outputs)
        return squashed_entropy(mean, np.exp(log_std))
    return entropy(softmax(np.float64(outputs)))


@pytest.mark.parametrize("name", ["sac", "discrete_sac"])
def test_values_include_entropy_and_alpha_brings_the_entropy_to_its_target(name):
    """Alpha is 0.1 in an environment where all actions are equal: the policy of largest entropy H
    is optimal, and Q = (1 + gamma alpha H) / (1 - gamma). In ARM alpha is learned.
    """
    family = FAMILIES[CASES[name].family]
    config = make_config(name, family, initial_alpha=0.1)

    def run(kind, length, terminates, alpha_learning_rate):
        env = probe(kind, length, terminates, continuous=family.continuous)
        swept = dataclasses.replace(config, alpha_learning_rate=alpha_learning_rate)
        _, state, pieces = train_in(name, family, swept, env)
        params, obs = params_of(state), jnp.zeros((1, 1))
        outputs = pieces["policy"].apply(params.actor, obs)
        return family.value(pieces, params, obs)[0], jax.tree.map(lambda x: x[0], outputs)

    settings = jnp.array([CONSTANT, ARM]), jnp.array([8, 1]), jnp.array([False, True])
    value, outputs = jax.jit(jax.vmap(run))(*settings, jnp.array([0.0, 0.002]))
    largest = max(squashed_entropy(0.0, std) for std in np.linspace(0.8, 0.95, 16))
    largest, target = (largest, -1.0) if name == "sac" else (np.log(2), 0.98 * np.log(2))
    of_constant, of_arm = (jax.tree.map(lambda x: x[i], outputs) for i in range(2))
    np.testing.assert_allclose(value[0], (1 + GAMMA * 0.1 * largest) / (1 - GAMMA), rtol=0.005)
    np.testing.assert_allclose(entropy_of(name, of_constant), largest, atol=0.02)
    np.testing.assert_allclose(entropy_of(name, of_arm), target, atol=0.05)


BOXES = {  # lower bounds, upper bounds and the best action
    "one dimension": ([-2.0], [6.0], [5.0]),
    "two dimensions": ([-2.0, 0.0], [6.0, 0.5], [5.0, 0.1]),
}
BOX_RUN = {
    "num_envs": 4, "num_steps": 8, "total_timesteps": 12_000, "buffer_size": 12_000,
    "batch_size": 128, "learning_starts": 256, "train_frequency": 4, "hidden_sizes": (32, 32),
    "activation": "tanh", "actor_learning_rate": 0.002, "critic_learning_rate": 0.005, "tau": 0.05,
    "exploration_repeat": 1,
}  # fmt: skip


@pytest.mark.parametrize("kind", BOXES)
@pytest.mark.parametrize("name", ["ddpg", "td3", "sac"])
def test_finds_the_best_action_of_an_asymmetric_box_and_stays_inside(name, kind):
    """Replay has every action of the run, as it was executed: the final observation is the action.

    The tolerance is 3.75 % of the range of each dimension, 0.3 in [-2, 6].
    """
    low, high, optimum = map(np.array, BOXES[kind])
    row = AGENTS[name]
    alpha = {"initial_alpha": 0.1, "alpha_learning_rate": 0.003} if name == "sac" else {}
    config = row.config(**BOX_RUN, **alpha)
    env = wrappers.batched(with_memory(row, config, box(low, high, optimum)), config.num_envs)
    agent = row.make(config, env.spec)

    def run(key):
        state, _ = train(make_learner(agent, env, config.num_steps), key, config.num_updates)
        return state

    state = jax.jit(run)(jax.random.key(0))
    action = agent.greedy(state.agent, state.obs, jax.random.key(0))
    action = np.asarray(action[0] if isinstance(action, tuple) else action)
    assert (np.abs(action - optimum) < 0.0375 * (high - low)).all(), action
    items = ring.contents(state.agent.replay)
    executed = np.asarray(items.action)
    np.testing.assert_array_equal(executed, items.next_obs)
    assert (executed >= low).all() and (executed <= high).all()
    tolerance = 0.02 * (high - low)  # actions of the warm-up reach the bounds
    assert (np.ptp(executed, axis=0) > high - low - tolerance).all()
