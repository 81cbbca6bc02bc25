"""DQN against a second, plainer implementation; its exploration, options and stored items."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_networks import constant_replay
from probes import bits, walk

import rljax
from rljax.agents.dqn import DQNConfig, dqn
from rljax.envs import wrappers
from rljax.networks import action_values
from rljax.ops import td
from rljax.replay import prioritized, ring
from rljax.training.learner import make_learner
from rljax.types import EnvSpec, Sample, Shared, Transition, sample_one

pytestmark = pytest.mark.usefixtures("quick_compiles")

SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=2)
N = 6
CONFIG = DQNConfig(
    num_envs=2, num_steps=3, total_timesteps=60, hidden_sizes=(5,), learning_rate=0.03, gamma=0.9,
    buffer_size=40, batch_size=N, learning_starts=6, train_frequency=6, gradient_steps=1,
    target_update_interval=6, tau=0.25, max_grad_norm=0.3, importance_exponent=0.4, n_step=1,
    anneal_lr=False, normalize_obs=False,
)  # fmt: skip


def make_batch(seed=0):
    """Six sampled transitions: two terminations, one truncation."""
    rng = np.random.default_rng(seed)
    obs, next_obs = (jnp.asarray(x, jnp.float32) for x in rng.normal(size=(2, N, 3)))
    action, reward = jnp.asarray(rng.integers(4, size=N)), jnp.asarray(rng.normal(size=N), "f4")
    terminated = jnp.array([0, 1, 0, 0, 1, 0], bool)
    truncated = jnp.array([0, 0, 1, 0, 0, 0], bool)
    return Transition(obs, action, reward, terminated, truncated, next_obs)


def with_target(state, target_params):
    return state._replace(learned=state.learned._replace(target_params=target_params))


def rollout_of(config, seed=1):
    rng = np.random.default_rng(seed)
    shape = config.num_steps, config.num_envs
    obs = jnp.asarray(rng.normal(size=(*shape, 3)), jnp.float32)
    flags = jnp.zeros(shape, bool)
    action = jnp.asarray(rng.integers(4, size=shape))
    return Transition(obs, action, jnp.ones(shape), flags, flags, obs)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("loss", ["squared", "huber"])
@pytest.mark.parametrize("discount", [None, 0.729])
def test_updates_equal_a_plain_implementation_of_the_paper(double, loss, discount):
    """Two updates with importance weights, gradient clipping, Adam and a moving target network."""
    config = dataclasses.replace(CONFIG, double=double, loss=loss)
    batch = make_batch()
    if discount is not None:  # the discount of n-step replay
        batch = batch._replace(extras={"discount": jnp.full(N, discount)})
    probability = jnp.array([0.3, 0.1, 0.2, 0.1, 0.2, 0.1])
    sample = Sample(batch, jnp.arange(N), probability, jnp.float32(0.05))
    agent = dqn(config, SPEC, replay=constant_replay(sample))
    network = action_values.q_network(SPEC, (5,), "relu")
    state = agent.init(jax.random.key(0))
    state = with_target(state, jax.tree.map(lambda x: 1.3 * x, state.params))
    params, target_params, opt_state = state.params, state.learned.target_params, None
    gamma = 0.9 if discount is None else discount
    adam, norms = optax.adam(config.learning_rate), []
    update_agent = jax.jit(agent.update)
    for update in range(2):
        next_q = network.apply(target_params, batch.next_obs)
        selecting_q = network.apply(params, batch.next_obs) if double else next_q
        next_action = np.argmax(selecting_q, axis=1)
        td_target = np.asarray(batch.reward) + gamma * np.where(
            batch.terminated, 0.0, np.asarray(next_q)[np.arange(N), next_action]
        )
        beta = 0.4 + 0.6 * 6 * (update + 1) / 60
        weight = (np.asarray(probability) / 0.05) ** -beta

        def weighted_loss(params, td_target=td_target, weight=weight):
            q = network.apply(params, batch.obs)[jnp.arange(N), batch.action]
            td_error = td_target - q
            losses = 0.5 * td_error**2
            if loss == "huber":
                losses = jnp.where(jnp.abs(td_error) < 1, losses, jnp.abs(td_error) - 0.5)
            return (weight * losses).mean(), td_error

        (_, td_error), grads = jax.value_and_grad(weighted_loss, has_aux=True)(params)
        norm = np.sqrt(sum(float(jnp.square(x).sum()) for x in jax.tree.leaves(grads)))
        norms.append(norm)
        grads = jax.tree.map(lambda x, norm=norm: x * min(1.0, 0.3 / norm), grads)
        opt_state = adam.init(params) if opt_state is None else opt_state
        updates, opt_state = adam.update(grads, opt_state)
        params = optax.apply_updates(params, updates)
        target_params = jax.tree.map(
            lambda old, new: 0.75 * old + 0.25 * new, target_params, params
        )
        state, metrics = update_agent(state, rollout_of(config), jax.random.key(update))
        np.testing.assert_allclose(state.replay[0], td_error, rtol=1e-4, atol=1e-5)
    assert max(norms) > 0.3  # gradients are clipped
    for got, expected in ((state.params, params), (state.learned.target_params, target_params)):
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
    assert metrics["losses/td_loss"].weight == 1.0


def states_of(config, num_updates):
    """The initial state of an agent on the walk, its states and gradient steps of each update."""
    env = wrappers.batched(walk(), config.num_envs)
    learner = make_learner(dqn(config, env.spec), env, config.num_steps)
    state = jax.jit(learner.init)(jax.random.key(0))

    @jax.jit
    def advance(state):
        def step(state, _):
            state, metrics = learner.step(state)
            return state, (state.agent._replace(replay=()), metrics["losses/td_loss"].weight)

        return jax.lax.scan(step, state, length=num_updates)[1]

    states, num_gradient_steps = advance(state)
    return state.agent, states, np.asarray(num_gradient_steps)


def at(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def test_nothing_is_learned_before_learning_starts():
    """And no metric counts a gradient step that was not taken."""
    config = dataclasses.replace(CONFIG, learning_starts=20, train_frequency=4)
    initial, states, num_steps = states_of(config, 6)
    np.testing.assert_array_equal(num_steps, [0, 0, 0, 2, 1, 2])  # at 20, 24; 28; 32, 36
    for i in range(6):
        is_equal = bits(at(states.learned.params, i)) == bits(initial.params)
        assert is_equal == (i < 3)
    np.testing.assert_array_equal(states.learned.opt_state[1][0].count, np.cumsum(num_steps))
    np.testing.assert_array_equal(states.env_steps.value, 6 * np.arange(1, 7))


def test_the_target_network_is_copied_at_exact_environment_steps():
    """Every 4 environment steps, with one environment and one gradient step per step."""
    config = dataclasses.replace(
        CONFIG, num_envs=1, num_steps=1, batch_size=1, learning_starts=1, train_frequency=1,
        target_update_interval=4, tau=1.0,
    )  # fmt: skip
    initial, states, num_steps = states_of(config, 9)
    np.testing.assert_array_equal(num_steps, 1)
    for step in range(1, 10):
        copied = step // 4 * 4
        expected = at(states.learned.params, copied - 1) if copied else initial.params
        assert bits(at(states.learned.target_params, step - 1)) == bits(expected), step
        assert bits(at(states.learned.params, step - 1)) != bits(expected) or step == copied


def test_exploration_follows_the_schedule_and_greedy_does_not_explore():
    """The frequency of the greedy action over the run; `greedy` takes no other."""
    config = dataclasses.replace(
        CONFIG, total_timesteps=2000, eps_start=1.0, eps_end=0.1, exploration_fraction=0.5
    )
    num_envs = 8000
    agent = dqn(config, SPEC._replace(num_envs=num_envs))
    state = agent.init(jax.random.key(0))
    obs = jax.random.normal(jax.random.key(1), (num_envs, 3))
    greedy = agent.greedy(state, obs, jax.random.key(2))
    values = action_values.q_network(SPEC, (5,), "relu").apply(state.params, obs)
    np.testing.assert_array_equal(greedy, values.argmax(axis=-1))
    act = jax.jit(agent.act)
    for steps, epsilon in ((0, 1.0), (500, 0.55), (1000, 0.1), (3000, 0.1)):
        state = state._replace(env_steps=Shared(jnp.int32(steps)))
        action, _ = act(state, obs, sample_one(agent.sample_noise, jax.random.key(steps)))
        expected = 1 - epsilon + epsilon / 4
        std = np.sqrt(expected * (1 - expected) / num_envs)
        np.testing.assert_allclose((action == greedy).mean(), expected, atol=4 * std + 1e-6)


COMBINATIONS = list(itertools.product([False, True], [False, True], [False, True], [1, 3]))


@pytest.mark.parametrize(("double", "dueling", "prioritized", "n_step"), COMBINATIONS)
def test_every_combination_trains(double, dueling, prioritized, n_step):
    config = dataclasses.replace(
        CONFIG, double=double, dueling=dueling, prioritized=prioritized, n_step=n_step,
        learning_starts=12,
    )  # fmt: skip
    agent, num_steps = dqn(config, SPEC), []
    initial = state = agent.init(jax.random.key(0))
    update = jax.jit(agent.update)
    for i in range(3):
        state, metrics = update(state, rollout_of(config, i), jax.random.key(i))
        num_steps.append(float(metrics["losses/td_loss"].weight))
    assert num_steps == [0, 1, 1]
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(initial.params), jax.tree.leaves(state.params),
        strict=True,
    ):  # fmt: skip
        assert np.isfinite(new).all() and not np.array_equal(old, new), path
    assert any("advantage" in name for name in initial.params["params"]) == dueling


def test_options_and_pieces_make_the_same_agent():
    options = dataclasses.replace(CONFIG, double=True, prioritized=True)
    pieces = {
        "bootstrap": td.select_double_action,
        "replay": prioritized(40, N, 0.6),
        "loss": td.squared,
    }

    def trained(agent):
        env = wrappers.batched(walk(), CONFIG.num_envs)
        learner = make_learner(agent, env, CONFIG.num_steps)
        return jax.jit(
            lambda key: jax.lax.scan(lambda s, _: learner.step(s), learner.init(key), length=4)[0]
        )(jax.random.key(0))

    spec = wrappers.batched(walk(), 2).spec
    assert bits(trained(dqn(options, spec))) == bits(trained(dqn(CONFIG, spec, **pieces)))


@pytest.mark.parametrize(
    "spec",
    [
        EnvSpec(obs_shape=(5, 5, 2), num_actions=3, num_envs=2),
        EnvSpec(obs_shape=(), num_states=7, num_actions=3, num_envs=2),
    ],
)
def test_images_and_numbered_states(spec):
    agent = dqn(CONFIG, spec)
    state = jax.jit(agent.init)(jax.random.key(0))
    numbered = spec.num_states > 0
    obs = jnp.ones((2, *spec.obs_shape), jnp.int32 if numbered else jnp.uint8)
    action, _ = agent.act(state, obs, sample_one(agent.sample_noise, jax.random.key(1)))
    assert action.shape == (2,) and action.dtype == jnp.int32
    flags = jnp.zeros((3, 2), bool)
    obs = jnp.stack([obs] * 3)
    trajectory = Transition(obs, jnp.zeros((3, 2), jnp.int32), jnp.ones((3, 2)), flags, flags, obs)
    after, metrics = jax.jit(agent.update)(state, trajectory, jax.random.key(2))
    assert metrics["losses/td_loss"].weight == 1
    assert bits(after.params) != bits(state.params)


@pytest.mark.slow
def test_solves_cartpole_in_100k_steps():
    """At least 12 of 16 seeds."""
    run = rljax.train("dqn", "CartPole-v1", num_seeds=16, total_timesteps=100_000, progress=False)
    returns = run.evaluation["returns"].mean(axis=-1)
    assert (returns >= 450).sum() >= 12, returns


def test_observations_are_stored_unnormalized_and_normalized_when_sampled():
    """Old observations are normalized by the present moments, not by those of their time."""
    agent = dqn(dataclasses.replace(CONFIG, normalize_obs=True), SPEC)
    state, update = agent.init(jax.random.key(0)), jax.jit(agent.update)
    rollouts = []
    for time in range(4):
        trajectory = rollout_of(CONFIG, seed=time)
        trajectory = trajectory._replace(obs=100.0 + 5.0 * trajectory.obs)
        rollouts.append(np.asarray(trajectory.obs).reshape(-1, 3))
        state, _ = update(state, trajectory, jax.random.key(time))
    obs = np.concatenate(rollouts)
    np.testing.assert_array_equal(ring.contents(state.replay).obs[: len(obs)], obs)
    standardized = np.clip((obs[:2] - obs.mean(0)) / obs.std(0), -10, 10)
    network = action_values.q_network(SPEC, (5,), "relu")
    expected = network.apply(state.params, jnp.asarray(standardized)).max(axis=-1)
    noise = sample_one(agent.sample_noise, jax.random.key(0))
    _, extras = agent.act(state, jnp.asarray(obs[:2]), noise)
    np.testing.assert_allclose(extras["value"], expected, rtol=1e-3, atol=1e-4)


def test_uint8_observations_are_stored_as_uint8():
    image = EnvSpec(obs_shape=(4, 4, 2), num_actions=4, num_envs=2, obs_dtype="uint8")
    agent = dqn(CONFIG, image)
    state = agent.init(jax.random.key(0))
    obs = jnp.arange(3 * 2 * 32, dtype=jnp.uint8).reshape(3, 2, 4, 4, 2)
    trajectory = rollout_of(CONFIG)._replace(obs=obs, next_obs=obs + 1)
    state, _ = jax.jit(agent.update)(state, trajectory, jax.random.key(0))
    assert sum(x.nbytes for x in state.replay.words.values()) == 40 * (2 * 32 + 2 + 8)
    items = ring.contents(state.replay)
    assert items.obs.dtype == jnp.uint8
    np.testing.assert_array_equal(items.next_obs[:6], (obs + 1).reshape(6, 4, 4, 2))
    floats = trajectory._replace(obs=obs / 255.0)
    with pytest.raises(ValueError, match='float32.* uint8: set `obs_dtype` .* to "float32"'):
        agent.update(state, floats, jax.random.key(0))
