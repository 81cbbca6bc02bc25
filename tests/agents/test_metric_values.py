"""The values of reported metrics, against numpy and against the change of the parameters."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import walk, with_memory
from test_contract import config_of

from rljax.agents import AGENTS
from rljax.agents.off_policy import example_transition
from rljax.agents.replay_schedule import replay_fill
from rljax.envs import wrappers
from rljax.replay import mixed, n_step, prioritized, rank_based, uniform
from rljax.training.learner import make_learner, rollout, train
from rljax.types import Mean, Replay, Sample, Shared, params_of

pytestmark = pytest.mark.usefixtures("quick_compiles")

RATE, B, T = 0.5, 2, 6
ONE_STEP = {
    "num_envs": B, "update_epochs": 1, "num_minibatches": 1, "gradient_steps": 1, "gamma": 0.0,
    "train_frequency": B * T, "learning_starts": B * T, "policy_delay": 1, "batch_size": 8,
    "normalize_advantage": False, "normalize_obs": False, "normalize_reward": False, "n_step": 1,
}  # fmt: skip


def make(name, kind, options, **pieces):
    """Returns an agent, and a function `(key) -> state, trajectory, next state, metrics`."""
    row = AGENTS[name]
    config = config_of(name, is_full=False)
    known = {field.name for field in dataclasses.fields(config)}
    options = {k: v for k, v in (ONE_STEP | options).items() if k in known}
    config = dataclasses.replace(config, **options)
    env = wrappers.batched(with_memory(row, config, walk(continuous=kind == "continuous")), B)
    agent = row.make(config, env.spec, **pieces)

    def one_update(key):
        state = agent.init(key)
        env_state, obs = env.reset(jax.random.key(1))
        trajectory = rollout(env, agent, state, env_state, obs, jax.random.key(2), T)[2]
        return state, trajectory, *agent.update(state, trajectory, jax.random.key(3))

    return agent, one_update


def update(name, kind="discrete", options=(), **pieces):
    """Returns the state, a rollout, the state after an update on it, and the metrics."""
    return jax.jit(make(name, kind, dict(options), **pieces)[1])(jax.random.key(0))


def value_of(metric):
    return metric.total / metric.weight if isinstance(metric, Mean) else metric


def distance(old, new):
    """Returns the Euclidean norm of the difference between two trees."""
    pairs = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
    return np.sqrt(sum(np.square(np.asarray(x, np.float64) - y).sum() for x, y in pairs))


@pytest.mark.parametrize("name", ["ppo", "a2c", "impala", "reinforce", "dqn", "pqn"])
def test_the_gradient_norm_is_the_length_of_the_step_over_the_rate(name):
    state, _, new, metrics = update(name, optimizer=optax.sgd(RATE))
    length = distance(params_of(state), params_of(new))
    assert length > 0
    np.testing.assert_allclose(value_of(metrics["losses/grad_norm"]), length / RATE, rtol=1e-3)
    assert "charts/learning_rate" not in metrics  # that of an own optimizer is not known


@pytest.mark.parametrize("name", ["ddpg", "td3", "sac"])
def test_gradient_norms_of_policy_and_critics(name):
    sgd = optax.sgd(RATE)
    state, _, new, metrics = update(name, "continuous", actor_optimizer=sgd, critic_optimizer=sgd)
    for part in ("actor", "critic"):
        length = distance(getattr(state.params, part), getattr(new.params, part))
        norm = value_of(metrics[f"losses/{part}_grad_norm"])
        assert length > 0
        np.testing.assert_allclose(norm, length / RATE, rtol=1e-3)


def test_the_norms_of_trpo():
    sgd = optax.sgd(RATE)
    state, _, new, metrics = update("trpo", optimizer=sgd)
    old, new = state.params["params"], new.params["params"]
    critic = [name for name in old if "critic" in name or name == "value"]
    length = distance({name: old[name] for name in critic}, {name: new[name] for name in critic})
    np.testing.assert_allclose(metrics["losses/critic_grad_norm"], length / RATE, rtol=1e-3)
    assert metrics["losses/actor_grad_norm"] > 0


@pytest.mark.parametrize("name", ["ppo", "impala", "trpo", "actor_critic"])
def test_explained_variance_is_that_of_the_values_before_the_update(name):
    """With gamma 0 the value target is the reward."""
    sgd = optax.sgd(RATE)  # so that the values after the update are others
    state, trajectory, _, metrics = update(name, optimizer=sgd)
    value = network_values(name, state, trajectory)
    reward = np.asarray(trajectory.reward, np.float64)
    expected = 1 - np.var(reward - value) / np.var(reward)
    np.testing.assert_allclose(value_of(metrics["losses/explained_variance"]), expected, rtol=1e-3)


def network_values(name, state, trajectory):
    from rljax.agents.policy_gradient import default_network

    config, spec = config_of(name, is_full=False), walk().spec
    network = default_network(config, spec, share=name != "trpo")
    return np.asarray(network.apply(state.params, trajectory.obs)[1], np.float64)


def test_an_update_without_a_completed_episode_has_no_weight():
    """REINFORCE then takes no step. Episodes of `walk` are cut in the first rollout."""
    agent, _ = make("reinforce", "discrete", {"gamma": 0.9})
    state = agent.init(jax.random.key(0))
    _, trajectory, _, _ = update("reinforce")
    never = jnp.zeros_like(trajectory.terminated)
    endless = trajectory._replace(terminated=never, truncated=never)
    step = jax.jit(agent.update)
    _, none = step(state, endless, jax.random.key(0))
    _, some = step(state, endless._replace(truncated=never.at[2].set(True)), jax.random.key(0))
    for name in ("losses/grad_norm", "losses/explained_variance"):
        assert none[name].weight == 0 and none[name].total == 0
        assert some[name].weight > 0


def test_steps_skipped_by_early_stopping_do_not_count():
    """The first step of an update is taken at a KL of 0, the second one stops it."""
    options = {"update_epochs": 2, "num_minibatches": 3, "target_kl": 1e-12, "hinge_coef": 0.0}
    state, _, new, metrics = update("dppo", options=options, optimizer=optax.sgd(RATE))
    norm = metrics["losses/grad_norm"]
    np.testing.assert_allclose(norm.weight, 1 / 6, rtol=1e-6)
    length = distance(state.params, new.params)
    np.testing.assert_allclose(norm.total / norm.weight, length / RATE, rtol=1e-3)


def test_workers_report_the_metrics_of_all_samples():
    """Two workers with different rollouts; gamma is 0, so value targets are rewards."""
    _, one_update = make("ppo", "discrete", {}, optimizer=optax.sgd(RATE))
    _, trajectory, _, _ = jax.jit(one_update)(jax.random.key(0))
    scale = jnp.array([1.0, -3.0])[:, None, None]
    both = jax.tree.map(lambda x: jnp.stack([x, x]), trajectory)
    both = both._replace(reward=scale * (both.reward + 1.0))
    average = partial(jax.lax.pmean, axis_name="workers")
    agent, _ = make("ppo", "discrete", {}, optimizer=optax.sgd(RATE), average=average)
    state = agent.init(jax.random.key(0))
    new, metrics = jax.jit(
        jax.vmap(agent.update, (None, 0, None), axis_name="workers")
    )(state, both, jax.random.key(3))  # fmt: skip
    value = network_values("ppo", state, both)
    reward = np.asarray(both.reward, np.float64)
    expected = 1 - np.var(reward - value) / np.var(reward)
    explained = value_of(metrics["losses/explained_variance"])
    np.testing.assert_allclose(explained, [expected] * 2, rtol=1e-4)
    length = distance(state.params, jax.tree.map(lambda x: x[0], new.params))
    np.testing.assert_allclose(metrics["losses/grad_norm"], [length / RATE] * 2, rtol=1e-3)


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_saturation_counts_actions_at_the_bounds_before_clipping(name):
    agent, one_update = make(name, "continuous", {})
    state, trajectory, _, _ = jax.jit(one_update)(jax.random.key(0))
    raw = 1.5 * trajectory.extras["raw_action"]
    trajectory = trajectory._replace(extras=trajectory.extras | {"raw_action": raw})
    _, metrics = jax.jit(agent.update)(state, trajectory, jax.random.key(0))
    expected = np.mean(np.abs(raw) >= 0.99)
    assert 0 < expected < 1
    np.testing.assert_allclose(metrics["charts/action_saturation"], expected, rtol=1e-6)


class ConstantPolicy(nn.Module):
    """A policy of one parameter, the mean of the action before the tanh."""

    is_gaussian: bool

    @nn.compact
    def __call__(self, obs):
        mean = self.param("mean", nn.initializers.zeros, ())
        mean = jnp.broadcast_to(mean, (*obs.shape[:-1], 2))
        return (mean, jnp.full(mean.shape, -20.0)) if self.is_gaussian else jnp.tanh(mean)


@pytest.mark.parametrize("name", ["ddpg", "td3", "sac"])
def test_saturation_of_a_squashed_policy(name):
    """tanh(2) is 0.964, tanh(3) is 0.995."""
    pieces = {"policy": ConstantPolicy(name == "sac"), "actor_optimizer": optax.sgd(0.0)}
    agent, one_update = make(name, "continuous", {}, **pieces)
    state, trajectory, _, _ = jax.jit(one_update)(jax.random.key(0))
    step = jax.jit(agent.update)
    for mean, expected in ((0.0, 0.0), (2.0, 0.0), (3.0, 1.0), (-9.0, 1.0)):
        actor = {"params": {"mean": jnp.float32(mean)}}
        learned = state.learned._replace(params=state.params._replace(actor=actor))
        _, metrics = step(state._replace(learned=learned), trajectory, jax.random.key(0))
        assert value_of(metrics["charts/action_saturation"]) == expected


def fixed_replay(transitions):
    """Returns a replay that always samples these transitions, without a ring of rljax."""
    num = len(transitions.reward)
    sample = Sample(transitions, jnp.arange(num), jnp.full(num, 1.0 / num), jnp.float32(1.0 / num))
    return Replay(
        lambda item: Shared(jnp.int32(0)), lambda state, items, skip=0: state,
        lambda state, noise: sample, lambda state, indices, td_error: state,
        lambda state: state.value,
    )  # fmt: skip


def test_values_of_the_sampled_actions_before_the_gradient_step():
    _, trajectory, _, _ = update("dqn")
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:8], trajectory._replace(extras=()))
    state, _, _, metrics = update("dqn", replay=fixed_replay(batch), optimizer=optax.sgd(RATE))
    from rljax.networks.action_values import q_network

    network = q_network(walk().spec, config_of("dqn", is_full=False).hidden_sizes, "relu")
    q = np.asarray(network.apply(state.params, batch.obs))[np.arange(8), batch.action]
    np.testing.assert_allclose(value_of(metrics["losses/q_value"]), q.mean(), rtol=1e-5)
    np.testing.assert_allclose(value_of(metrics["losses/q_value_max"]), q.max(), rtol=1e-5)
    assert "charts/replay_fill" not in metrics  # the capacity of another replay is not known


@pytest.mark.parametrize("name", ["dqn", "pqn"])
def test_the_deviation_of_the_values_of_a_rollout(name):
    """With weights of 0 in one layer the network is constant: the deviation is exactly 0."""
    _, trajectory, _, metrics = update(name, options={"normalize_obs": False})
    value = np.asarray(trajectory.extras["value"], np.float64)
    assert value.shape == (T, B)
    np.testing.assert_allclose(value_of(metrics["losses/value_std"]), value.std(), rtol=1e-4)

    agent, _ = make(name, "discrete", {})
    state = agent.init(jax.random.key(0))
    constant = jnp.full((T, B), 100 / 3)
    trajectory = trajectory._replace(extras={"value": constant})
    _, metrics = agent.update(state, trajectory, jax.random.key(1))
    assert value_of(metrics["losses/value_std"]) == 0


@pytest.mark.parametrize("name", ["dqn", "pets"])
def test_replay_fill_is_the_fraction_of_the_capacity(name):
    options = {"buffer_size": 40, "learning_starts": 20, "train_frequency": 6, "n_step": 1}
    agent, one_update = make(name, AGENTS[name].actions[-1], options)
    state, trajectory, _, metrics = jax.jit(one_update)(jax.random.key(0))
    step, fills = jax.jit(agent.update), []
    for _ in range(5):
        fills.append(float(metrics["charts/replay_fill"]))
        state, metrics = step(state, trajectory, jax.random.key(0))
    np.testing.assert_allclose(fills, [0.3, 0.3, 0.6, 0.9, 1.0], rtol=1e-6)


@pytest.mark.parametrize(
    "buffer, fills",
    [
        (uniform(10, 2), [0.0, 0.4, 0.8, 1.0]),
        (prioritized(10, 2), [0.0, 0.4, 0.8, 1.0]),
        (rank_based(10, 2), [0.0, 0.4, 0.8, 1.0]),
        (mixed(uniform(10, 2), uniform(99, 2)), [0.0, 0.4, 0.8, 1.0]),  # of the first one
        (n_step(uniform(10, 2), 3, 0.9, B), [0.0, 0.0, 0.4, 0.8]),  # returns of 3 rewards
    ],
    ids=["uniform", "prioritized", "rank-based", "mixed", "n-step"],
)
def test_fill_of_each_replay_buffer_from_empty_to_full(buffer, fills):
    item = example_transition(walk().spec)
    steps = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, B, *x.shape)), item)
    state, found = buffer.init(item), []
    for _ in fills:
        found.append(float(replay_fill(buffer, state)["charts/replay_fill"]))
        state = buffer.add(state, steps)
    np.testing.assert_allclose(found, fills, rtol=1e-6)


def test_metrics_of_gradient_steps_are_nan_before_learning_starts():
    row, config = AGENTS["dqn"], config_of("dqn", is_full=False)
    config = dataclasses.replace(config, learning_starts=24, train_frequency=4, n_step=1)
    env = wrappers.batched(walk(), B)
    learner = make_learner(row.make(config, env.spec), env, T)
    run = jax.jit(partial(train, learner, num_updates=2, num_reports=2))
    _, report = run(jax.random.key(0))
    for name in ("losses/grad_norm", "losses/q_value_max", "charts/learning_rate"):
        np.testing.assert_array_equal(np.isnan(report[name]), [True, False], err_msg=name)
    np.testing.assert_allclose(report["charts/replay_fill"], [12 / 40, 24 / 40], rtol=1e-6)


@pytest.mark.parametrize("name", ["ppo", "dqn", "pqn"])
def test_the_learning_rate_is_annealed_by_the_update(name):
    options = {"anneal_lr": True, "learning_rate": 0.8}
    agent, one_update = make(name, "discrete", options)
    state, trajectory, *_ = jax.jit(one_update)(jax.random.key(0))
    step, found = jax.jit(agent.update), []
    for _ in range(3):
        state, metrics = step(state, trajectory, jax.random.key(0))
        found.append(float(value_of(metrics["charts/learning_rate"])))
    differences = -np.diff(found)
    assert np.isclose(found[0], 0.8) and (differences > 0).all()
    np.testing.assert_allclose(differences[0], differences[1], rtol=1e-3)


def test_the_approximate_kl_of_impala_is_the_estimator_k3():
    agent, one_update = make("impala", "discrete", {})
    state, trajectory, _, _ = jax.jit(one_update)(jax.random.key(0))
    (logits,) = trajectory.extras["policy"]
    behavior = jax.random.normal(jax.random.key(5), logits.shape)
    trajectory = trajectory._replace(extras=trajectory.extras | {"policy": (behavior,)})
    _, metrics = jax.jit(agent.update)(state, trajectory, jax.random.key(0))

    def log_prob(x):
        x = np.asarray(x, np.float64)
        log_policy = x - np.log(np.exp(x).sum(-1, keepdims=True))
        return np.take_along_axis(log_policy, np.asarray(trajectory.action)[..., None], -1)

    log_ratio = log_prob(logits) - log_prob(behavior)  # the learner has acted
    k3 = np.mean(np.exp(log_ratio) - 1 - log_ratio)
    np.testing.assert_allclose(metrics["losses/approx_kl"], k3, rtol=1e-4)
