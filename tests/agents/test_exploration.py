"""Random network distillation: the bonus against numpy, and wrapped agents of every kind."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import DELAYED, bits, circle, probe, walk, with_memory
from recorder import KEY, RECORDER, SPEC, B, T, make_trajectory

import rljax
from rljax.agents import AGENTS
from rljax.agents.exploration import CLIP, random_network_distillation
from rljax.agents.normalize import normalized
from rljax.config import config, option
from rljax.envs import wrappers
from rljax.experiment import checkpoint
from rljax.training.learner import make_learner
from rljax.types import EnvSpec, RecurrentObs, identity, params_of

pytestmark = pytest.mark.usefixtures("quick_compiles")

GAMMA, RATE = 0.9, 0.01
TINY = {"gamma": GAMMA, "hidden_sizes": (5,), "num_features": 3}


def add_bonus(agent, spec=SPEC, **options):
    return random_network_distillation(agent, spec, **(TINY | options))


def make(spec=SPEC, agent=RECORDER, **options):
    agent = add_bonus(agent, spec, **options)
    return agent, agent.init(KEY), jax.jit(agent.update)


def bonus_of(state, trajectory):
    """The bonus that the inner agent, which records its inputs, was given."""
    return np.asarray(state.agent.reward - trajectory.reward)


# The bonus


def features(params, x):
    """The network in float64: hidden ReLU layers and a linear layer."""
    layers = params["params"]
    hidden = layers.get("MLP_0", {})
    for name in sorted(hidden):
        x = np.maximum(x @ np.float64(hidden[name]["kernel"]) + np.float64(hidden[name]["bias"]), 0)
    return x @ np.float64(layers["Dense_0"]["kernel"]) + np.float64(layers["Dense_0"]["bias"])


def errors(state, obs, samples):
    """Mean squared prediction errors, with observations standardized by `samples`, in float64."""
    samples = np.float64(samples).reshape(-1, obs.shape[-1])
    x = (np.float64(obs) - samples.mean(0)) / np.sqrt(samples.var(0) + 1e-8)
    x = x.clip(-CLIP, CLIP)
    return np.square(features(state.predictor, x) - features(state.target, x)).mean(-1)


def test_the_bonus_is_the_prediction_error_over_the_std_of_its_discounted_sum():
    _, state, update = make(coefficient=0.3, learning_rate=RATE)
    samples, sums, total = [], [], np.zeros(B)
    for seed in range(4):
        trajectory = make_trajectory(seed, offset=5.0 + seed)
        trajectory = trajectory._replace(next_obs=trajectory.next_obs.at[0, 0].set(100.0))
        samples.append(trajectory.next_obs)
        error = errors(state, trajectory.next_obs, np.concatenate(samples))
        done = np.asarray(trajectory.terminated | trajectory.truncated)
        for t in range(T):
            total = error[t] + GAMMA * total
            sums.append(total)
            total = np.where(done[t], 0.0, total)
        expected = error / np.sqrt(np.var(sums) + 1e-8)
        before, (state, metrics) = state, update(state, trajectory, KEY)
        np.testing.assert_allclose(
            bonus_of(state, trajectory), 0.3 * expected, rtol=1e-3, atol=1e-6
        )
        np.testing.assert_allclose(metrics["losses/rnd_loss"], error.mean(), rtol=1e-3)
        np.testing.assert_allclose(metrics["charts/intrinsic_reward"], expected.mean(), rtol=1e-3)
        np.testing.assert_allclose(state.running_return, total, rtol=1e-3)
        assert bits(state.target) == bits(before.target)
    assert expected.max() > 2 * expected.min()


def test_the_predictor_takes_one_step_of_adam_on_the_mean_error():
    """Without hidden layers the gradient has a closed form; Adam's first step is its sign."""
    spec = EnvSpec(num_states=4, num_actions=2, num_envs=B)
    _, state, update = make(spec, hidden_sizes=(), learning_rate=RATE)
    states = np.random.default_rng(0).integers(0, 3, (T, B))  # never the last state
    x = np.eye(4)[states.ravel()]
    residual = features(state.predictor, x) - features(state.target, x)
    old = state.predictor["params"]["Dense_0"]
    states = jnp.asarray(states)
    trajectory = make_trajectory(0)._replace(obs=states, next_obs=states)
    new = update(state, trajectory, KEY)[0].predictor["params"]["Dense_0"]
    gradients = {
        "kernel": 2 * x.T @ residual / residual.size,
        "bias": 2 * residual.sum(0) / residual.size,
    }
    for name, gradient in gradients.items():
        gradient = 2 * gradient / residual.size
        expected = np.float64(old[name]) - RATE * gradient / (np.abs(gradient) + 1e-8)
        np.testing.assert_allclose(new[name], expected, atol=1e-6)
    assert bits(new["kernel"][3]) == bits(old["kernel"][3])


def test_the_bonus_of_repeated_observations_shrinks_and_that_of_novel_ones_is_larger():
    trajectory = make_trajectory(0)
    repeat, novel = (trajectory.next_obs.at[:].set(jnp.array(x)) for x in ([1.0, 0], [0, 1.0]))
    both = jnp.where(jnp.arange(T)[:, None, None] % 2 == 0, repeat, novel)
    no = jnp.zeros((T, B), bool)
    trajectory = trajectory._replace(terminated=no, truncated=no)

    def run(key):
        agent = random_network_distillation(RECORDER, SPEC, coefficient=1.0, learning_rate=RATE)
        state, first = agent.init(key), trajectory._replace(next_obs=both)
        state = state._replace(agent=first)  # so that the carry of the scan keeps its structure

        def one(state, obs):
            state, _ = agent.update(state, trajectory._replace(next_obs=obs), KEY)
            return state, state.agent.reward - trajectory.reward

        observations = jnp.stack([both, *[repeat] * 60, both])
        return jax.lax.scan(one, state, observations)[1]

    bonus = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, 8)))  # [seed, update, T, B]
    first, last = bonus[:, 0], bonus[:, -1]
    assert (bonus[:, 60].mean((1, 2)) < 0.1 * bonus[:, 1].mean((1, 2))).all()
    assert (last[:, 1::2].mean((1, 2)) > 3 * last[:, ::2].mean((1, 2))).all()
    assert np.isfinite(first).all()


def test_numbered_states_are_one_hot_vectors():
    spec = EnvSpec(num_states=4, num_actions=2, num_envs=B)
    _, state, update = make(spec)
    assert state.obs == ()
    states = np.random.default_rng(0).integers(0, 4, (T, B))
    trajectory = make_trajectory(0)._replace(obs=jnp.asarray(states), next_obs=jnp.asarray(states))
    one_hot = np.eye(4)[states]
    error = features(state.predictor, one_hot) - features(state.target, one_hot)
    _, metrics = update(state, trajectory, KEY)
    np.testing.assert_allclose(metrics["losses/rnd_loss"], np.square(error).mean(), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_observations_may_be_images_of_bytes(dtype):
    spec = EnvSpec(obs_shape=(4, 5, 2), num_actions=2, num_envs=B, obs_dtype=dtype)
    _, state, update = make(spec)
    assert "minatar_0" in state.predictor["params"]["Encoder_0"]
    obs = jax.random.randint(KEY, (T, B, *spec.obs_shape), 0, 256).astype(dtype)
    trajectory = make_trajectory(0)._replace(obs=obs, next_obs=obs)
    state, metrics = update(state, trajectory, KEY)
    assert bits(state.agent.obs) == bits(obs)
    assert 0 < metrics["charts/intrinsic_reward"] < 10


# The inner agent


def test_the_inner_agent_gets_all_but_the_reward_unchanged():
    """Observations, actions, terminations, truncations and extras are those of the rollout."""
    agent, state, update = make()
    trajectory = make_trajectory(0)._replace(extras={"value": jnp.ones((T, B))})
    assert trajectory.truncated.any() and trajectory.terminated.any()
    state, metrics = update(state, trajectory, KEY)
    assert bits(state.agent._replace(reward=())) == bits(trajectory._replace(reward=()))
    assert (bonus_of(state, trajectory) > 0).all()
    assert metrics["losses/reward"] == state.agent.reward.mean()
    obs = jnp.ones((B, 2))
    assert bits(agent.greedy(state, obs, KEY)) == bits(obs)
    assert agent.sample_noise is RECORDER.sample_noise
    assert agent.act(state, obs, "noise")[1]["noise"] == "noise"


def test_without_a_coefficient_the_reward_is_unchanged():
    _, state, update = make(coefficient=0.0)
    trajectory = make_trajectory(0)
    assert bits(update(state, trajectory, KEY)[0].agent.reward) == bits(trajectory.reward)


def test_the_first_bonus_is_bounded():
    """The discounted sums of a rollout of one step in one environment have no variance."""
    spec = SPEC._replace(num_envs=1)
    _, state, update = make(spec, coefficient=1.0)
    trajectory = jax.tree.map(lambda x: x[:1, :1], make_trajectory(0))
    assert 0 <= bonus_of(update(state, trajectory, KEY)[0], trajectory)[0, 0] <= 10


def test_the_bonus_composes_with_normalization_in_either_order():
    trajectory = make_trajectory(0)
    with_bonus, normal = add_bonus(RECORDER), normalized(RECORDER, SPEC, gamma=GAMMA)

    def recorded(agent, state, trajectory):
        return jax.jit(agent.update)(state, trajectory, KEY)[0].agent

    outer = add_bonus(normal)  # the sum of reward and bonus is normalized
    start = outer.init(KEY)
    got = recorded(outer, start, trajectory).agent
    inputs = recorded(with_bonus, start, trajectory)
    expected = recorded(normal, start.agent, inputs)
    np.testing.assert_allclose(got.reward, expected.reward, rtol=1e-5)

    outer = normalized(with_bonus, SPEC, gamma=GAMMA)  # the bonus is added to normalized rewards
    start = outer.init(KEY)
    got = recorded(outer, start, trajectory).agent
    expected = recorded(with_bonus, start.agent, recorded(normal, start, trajectory))
    np.testing.assert_allclose(got.reward, expected.reward, rtol=1e-5)


def test_workers_share_the_predictor_and_the_statistics():
    average = partial(jax.lax.pmean, axis_name="workers")
    agent, _, _ = make(average=average, learning_rate=RATE)
    workers = [make_trajectory(seed, offset=10.0 * seed) for seed in range(3)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *workers)
    start = jax.vmap(lambda _: agent.init(KEY))(jnp.arange(3))
    update = jax.jit(jax.vmap(agent.update, (0, 0, None), axis_name="workers"))
    state, metrics = update(start, together, KEY)
    shared = state.predictor, state.opt_state, state.obs, state.error, metrics["losses/rnd_loss"]
    for worker in range(1, 3):
        one, other = (jax.tree.map(lambda x: x[i], shared) for i in (0, worker))
        assert bits(one) == bits(other)
    samples = np.concatenate([x.next_obs for x in workers])
    of_worker = [errors(make()[1], x.next_obs, samples).mean() for x in workers]
    np.testing.assert_allclose(metrics["losses/rnd_loss"][0], np.mean(of_worker), rtol=1e-4)


# Agents of every kind

OPTIONS = {
    "num_envs": B, "num_steps": T, "total_timesteps": 8 * B * T, "hidden_sizes": (4,),
    "buffer_size": 60, "batch_size": 8, "learning_starts": 12, "update_epochs": 1,
    "num_minibatches": 2,
}  # fmt: skip
BONUS_FIRST = {
    True: lambda agent, spec: normalized(add_bonus(agent, spec), spec),
    False: lambda agent, spec: add_bonus(normalized(agent, spec), spec),
}
KINDS = {  # agent, options, whether actions are continuous, whether the bonus is added first
    "dqn": ("dqn", {"normalize_obs": True, "n_step": 2, "prioritized": True}, False, True),
    "ppo": ("ppo", {"normalize_obs": True, "normalize_reward": True}, True, False),
    "recurrent ppo": ("ppo", {"memory": "gru", "num_minibatches": 1}, False, True),
    "ddpg": ("ddpg", {}, True, False),
    "sac": ("sac", {}, True, True),
    "q_learning": ("q_learning", {}, False, False),
}


def wrapped_learner(kind):
    name, options, continuous, bonus_first = KINDS[kind]
    if name not in AGENTS:
        pytest.skip(f"there is no agent `{name}`")
    row = AGENTS[name]
    known = rljax.config.field_types(row.config)
    values = row.config(**{k: v for k, v in (OPTIONS | options).items() if k in known})
    env = circle() if row.tabular else walk(continuous=continuous)
    env = wrappers.batched(with_memory(row, values, env), B)
    agent = BONUS_FIRST[bonus_first](row.make(values, env.spec), env.spec)
    return make_learner(agent, env, T)


@pytest.mark.parametrize("kind", KINDS)
def test_wrapped_agents_learn_and_keep_their_structure(kind, tmp_path):
    """With bonus and normalization, for two seeds; a checkpoint continues bit for bit."""
    learner = wrapped_learner(kind)

    def aval(x):
        return x.shape, x.dtype, getattr(x, "weak_type", False)

    @jax.jit
    def advance(states):
        return jax.lax.scan(lambda states, _: jax.vmap(learner.step)(states), states, length=3)

    start = jax.jit(jax.vmap(learner.init))(jax.random.split(KEY, 2))
    end, metrics = advance(start)
    assert jax.tree.map(aval, end) == jax.tree.map(aval, start)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((params_of(end.agent), metrics)))
    assert bits(params_of(start.agent)) != bits(params_of(end.agent))
    assert (metrics["charts/intrinsic_reward"] > 0).all()
    path = checkpoint.save(tmp_path, end, {}, step=3)
    loaded, _ = checkpoint.load(path, jax.eval_shape(lambda: start))
    assert bits(advance(loaded)) == bits(advance(end))
    assert advance._cache_size() == 1


def test_the_memory_of_a_recurrent_agent_is_passed_on():
    _, state, update = make()
    trajectory = make_trajectory(0)
    memory = jnp.ones((T, B, 4))
    wrap = partial(RecurrentObs, memory=memory)
    recurrent = trajectory._replace(obs=wrap(trajectory.obs), next_obs=wrap(trajectory.next_obs))
    recorder = RECORDER._replace(update=lambda state, trajectory, key: (trajectory, {}))
    agent, _, update = make(agent=recorder)
    new, metrics = update(state, recurrent, KEY)
    expected = jax.jit(make(agent=recorder)[0].update)(state, trajectory, KEY)
    assert bits(new.agent.obs) == bits(recurrent.obs)
    assert bits((new.agent.reward, metrics)) == bits((expected[0].agent.reward, expected[1]))


# Training


@config
class BonusConfig(AGENTS["dqn"].config):
    coefficient: float = option(0.5, "weight of the exploration bonus", low=0)


def dqn_with_bonus(config, spec, *, average=identity):
    agent = rljax.dqn(config, spec, average=average)
    return random_network_distillation(
        agent, spec, coefficient=config.coefficient, average=average, **TINY
    )


def test_the_coefficient_can_be_swept_and_returns_are_those_of_the_environment():
    run = rljax.train(
        (BonusConfig, dqn_with_bonus), probe(DELAYED, length=5), coefficient=[0.0, 100.0],
        num_seeds=2, total_timesteps=600, learning_starts=128, num_reports=3, progress=False,
        eval_episodes=2, target_update_interval=500, n_step=1, anneal_lr=False, eps_end=0.05,
        exploration_repeat=1, normalize_obs=False,
    )  # fmt: skip
    assert run.returns.shape == (2, 2, 3)
    np.testing.assert_array_equal(run.returns, 10.0)
    np.testing.assert_array_equal(run.evaluation["returns"], 10.0)
    assert run.metric("charts/intrinsic_reward").shape == (2, 2, 3)
    q_value = run.metric("losses/q_value")[..., -1]
    assert (q_value[1] > 2 * q_value[0]).all()
