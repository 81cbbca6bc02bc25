"""REINFORCE against its sum over whole episodes, written out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import bits, counts, random_trajectory

import rljax
from rljax import networks
from rljax.agents.policy_gradient import actor_critic_loss, normalized_advantage
from rljax.agents.reinforce import REINFORCEConfig, reinforce
from rljax.networks import like
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B, ROLLOUTS, GAMMA = 4, 2, 5, 0.9
SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=B, max_episode_steps=6)
CONFIG = REINFORCEConfig(
    num_envs=B, num_steps=T, total_timesteps=T * B * 8, gamma=GAMMA, baseline="none",
    normalize_advantage=False, ent_coef=0.0, normalize_obs=False, normalize_reward=False,
)  # fmt: skip
NETWORK = networks.actor_critic_network(SPEC, (5,), "tanh")


def long_trajectory(spec=SPEC, ends=0.15):
    """A trajectory of several rollouts, with episodes of at most 6 steps."""
    long = random_trajectory(1, T * ROLLOUTS, spec.num_envs, spec, ends=ends)
    time = np.arange(T * ROLLOUTS)[:, None]
    cut = jnp.asarray((time % 6 == 5) & ~np.asarray(long.terminated))
    return long._replace(
        truncated=long.truncated | cut, extras={"raw_action": long.action, "policy": ()}
    )


def rollouts_of(trajectory):
    return [jax.tree.map(lambda x: x[i : i + T], trajectory) for i in range(0, T * ROLLOUTS, T)]


def learn(config, rollouts, spec=SPEC, *, return_states=False, **options):
    """The parameters before each update and after the last, by default with plain SGD."""
    agent = reinforce(config, spec, network=NETWORK, **{"optimizer": optax.sgd(0.1), **options})
    state = agent.init(jax.random.key(0))
    # the extras of `act` also hold a policy, which these tests do not use
    steps = state.waiting.steps._replace(
        extras={"raw_action": state.waiting.steps.action, "policy": ()}
    )
    state = state._replace(waiting=state.waiting._replace(steps=steps))
    update, states = jax.jit(agent.update), [state]
    for rollout in rollouts:
        state, _ = update(state, rollout, jax.random.key(1))
        states.append(state)
    path = [state.params for state in states]
    return (path, states) if return_states else path


@jax.jit
def value_of(params, obs):
    return NETWORK.apply(params, obs)[1]


def expected_step(params, trajectory, update, config):
    """One update by definition: a sum over the steps of episodes that ended in this rollout."""
    reward, done = (
        np.asarray(trajectory.reward),
        np.asarray(trajectory.terminated | trajectory.truncated),
    )
    value, next_value = (
        np.asarray(value_of(params, x)) for x in (trajectory.obs, trajectory.next_obs)
    )
    weights, targets, used = np.zeros(done.shape), np.zeros(done.shape), np.zeros(done.shape)
    for b in range(done.shape[1]):
        start = 0
        for end in np.flatnonzero(done[:, b]):
            if update * T <= end < (update + 1) * T:
                for t in range(start, end + 1):
                    total = sum(GAMMA ** (k - t) * reward[k, b] for k in range(t, end + 1))
                    if config.baseline == "value" and trajectory.truncated[end, b]:
                        total += GAMMA ** (end + 1 - t) * next_value[end, b]
                    targets[t, b], used[t, b] = total, 1.0
                    weights[t, b] = total - (value[t, b] if config.baseline == "value" else 0.0)
            start = end + 1
    if config.normalize_advantage:
        kept = weights[used > 0]
        weights = (weights - kept.mean()) / kept.std()
    if config.discount_gradient:
        for b in range(done.shape[1]):
            time = 0
            for t in range(len(done)):
                weights[t, b] *= GAMMA**time
                time = 0 if done[t, b] else time + 1

    @jax.jit
    @jax.grad
    def gradient(params):
        policy, value = NETWORK.apply(params, trajectory.obs)
        log_policy = jax.nn.log_softmax(policy.logits)
        chosen = jnp.take_along_axis(log_policy, trajectory.action[..., None], axis=-1)[..., 0]
        error = 0.5 * jnp.square(value - targets) if config.baseline == "value" else 0.0 * value
        return ((-chosen * weights + config.vf_coef * error) * used).sum() / max(used.sum(), 1)

    return jax.tree.map(lambda x, g: x - 0.1 * g, params, gradient(params)), used


@pytest.mark.parametrize(
    "options",
    [{}, {"baseline": "value", "normalize_advantage": True}, {"discount_gradient": True}],
)
def test_every_step_is_used_once_after_its_episode_has_ended(options):
    config, trajectory = dataclasses.replace(CONFIG, **options), long_trajectory()
    path, count, waited = learn(config, rollouts_of(trajectory)), 0, 0
    for i in range(ROLLOUTS):
        expected, used = expected_step(path[i], trajectory, i, config)
        for x, y in zip(jax.tree.leaves(path[i + 1]), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
        count += used.sum()
        waited += used[: i * T].sum()
    assert waited > 5
    assert count > 0.8 * T * ROLLOUTS * B


@pytest.mark.parametrize("baseline", ["none", "value"])
def test_steps_are_used_when_they_leave_the_window(baseline):
    """Episodes without end: the return ends with the window, a baseline adds v(next_obs)."""
    spec = SPEC._replace(max_episode_steps=0)  # the window is one rollout
    endless = long_trajectory(spec)._replace(terminated=jnp.zeros((T * ROLLOUTS, B), bool))
    endless = endless._replace(truncated=endless.terminated, next_obs=jnp.roll(endless.obs, -1, 0))
    config = dataclasses.replace(CONFIG, baseline=baseline)
    path = learn(config, rollouts_of(endless)[:2], spec)
    assert all(np.array_equal(*x) for x in zip(*map(jax.tree.leaves, path[:2]), strict=True))
    steps = jax.tree.map(lambda x: x[: 2 * T], endless)
    value, next_value = (NETWORK.apply(path[1], x)[1] for x in (steps.obs, steps.next_obs))
    total = (baseline == "value") * next_value[-1]
    targets = []
    for reward in steps.reward[::-1]:
        total = reward + GAMMA * total
        targets.insert(0, total)
    targets = jnp.stack(targets)[:T]

    def loss(params):
        policy, values = NETWORK.apply(params, steps.obs[:T])
        advantage = targets - (value[:T] if baseline == "value" else 0.0)
        error = 0.5 * jnp.square(values - targets) * (baseline == "value")
        return (-policy.log_prob(steps.action[:T]) * advantage + config.vf_coef * error).mean()

    for x, y, g in zip(
        *map(jax.tree.leaves, (path[2], path[1], jax.grad(loss)(path[1]))), strict=True
    ):
        np.testing.assert_allclose(x, y - 0.1 * g, rtol=1e-4, atol=1e-5)


def test_updates_without_the_end_of_an_episode_change_no_parameter():
    """Adam moves on a zero gradient by its momentum; only the annealed learning rate advances."""
    rollouts = rollouts_of(long_trajectory(ends=0.0))
    ends = jnp.zeros((T, B), bool).at[1].set(True)
    endless = [x._replace(truncated=ends & (i == 0)) for i, x in enumerate(rollouts)]
    spec = SPEC._replace(max_episode_steps=100)  # a window that no step leaves
    path, states = learn(CONFIG, endless, spec, optimizer=None, return_states=True)
    assert bits(path[0]) != bits(path[1]) == bits(path[-1])
    assert [counts(state.opt_state) for state in states] == [(i > 0, i) for i in range(6)]


def test_workers_equal_one_worker_with_all_environments():
    """Although the workers have different numbers of steps that are ready."""
    config = dataclasses.replace(
        CONFIG, baseline="value", normalize_advantage=True, num_envs=4, total_timesteps=160
    )
    spec = SPEC._replace(num_envs=4)
    rollouts = rollouts_of(long_trajectory(spec, ends=0.2))
    alone = learn(config, rollouts, spec)[-1]

    def worker(shard):
        average = lambda x: jax.lax.pmean(x, "workers")  # noqa: E731
        return learn(config, shard, SPEC._replace(num_envs=2), average=average)[-1]

    shards = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(T, 2, 2, *x.shape[2:]), 1, 0), rollouts)
    together = jax.jit(jax.vmap(worker, axis_name="workers"))(shards)
    for x, y in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(x[0], y, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(x[0], x[1])


class Logits:
    """A network whose parameters are the logits of its policy."""

    @staticmethod
    def apply(params, obs):
        return like((jnp.broadcast_to(params, (len(obs), 2)),)), jnp.zeros(len(obs))


def test_the_gradient_by_hand():
    """Logits (0, 0), action 0, return 2; the entropy is a bonus, not a cost."""

    def gradient(params, ent_coef, advantage):
        config = dataclasses.replace(CONFIG, ent_coef=ent_coef)
        given = jnp.zeros((1, 3)), jnp.array([0]), jnp.array([advantage]), jnp.zeros(1)
        return jax.grad(lambda x: actor_critic_loss(Logits, config, x, *given)[0])(params)

    np.testing.assert_allclose(gradient(jnp.zeros(2), 0.0, 2.0), [-1.0, 1.0], atol=1e-6)
    gradient_of_bonus = gradient(jnp.array([2.0, 0.0]), 0.5, 0.0)
    # a gradient-descent step makes the logits more equal
    assert gradient_of_bonus[0] > 0.01 and gradient_of_bonus[1] < -0.01


def test_normalized_returns_of_one_step_are_zero():
    scaled = normalized_advantage(jnp.array([2.71, 1.9, 1.0]))
    np.testing.assert_allclose(scaled, [1.202703, 0.042954, -1.245657], atol=1e-5)
    np.testing.assert_array_equal(normalized_advantage(jnp.array([[3.7]])), [[0.0]])


@pytest.mark.slow
def test_the_short_corridor_is_solved_by_a_stochastic_policy():
    """Sutton and Barto (2018), example 13.1: the optimal return is -11.66, for p(right) = 0.59."""
    run = rljax.train(
        "reinforce", "rljax/ShortCorridor", num_seeds=10, total_timesteps=100_000, gamma=1.0,
        num_reports=5, eval_episodes=0, progress=False, normalize_obs=False, normalize_reward=False,
    )  # fmt: skip
    last = np.asarray(run.metrics["charts/episodic_return"])[:, -1]
    assert -13 < last.mean() < -11.4
