"""REINFORCE against its sum over whole episodes, written out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import random_trajectory

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
    normalize_advantage=False, ent_coef=0.0,
)  # fmt: skip
NETWORK = networks.actor_critic_network(SPEC, (5,), "tanh")


def whole(spec=SPEC, ends=0.15):
    """A long trajectory; none of its episodes is longer than a wait."""
    long = random_trajectory(1, T * ROLLOUTS, spec.num_envs, spec, ends=ends)
    time = np.arange(T * ROLLOUTS)[:, None]
    cut = jnp.asarray((time % 6 == 5) & ~np.asarray(long.terminated))
    return long._replace(
        truncated=long.truncated | cut, extras={"raw_action": long.action, "policy": ()}
    )


def parts(trajectory):
    return [jax.tree.map(lambda x: x[i : i + T], trajectory) for i in range(0, T * ROLLOUTS, T)]


def learn(config, rollouts, spec=SPEC, **options):
    """The parameters before each update, and after the last, under plain gradient steps."""
    agent = reinforce(config, spec, network=NETWORK, optimizer=optax.sgd(0.1), **options)
    state = agent.init(jax.random.key(0))
    # `act` remembers a policy as well, which nothing here reads
    steps = state.waiting.steps._replace(
        extras={"raw_action": state.waiting.steps.action, "policy": ()}
    )
    state = state._replace(waiting=state.waiting._replace(steps=steps))
    update, path = jax.jit(agent.update), [state.params]
    for rollout in rollouts:
        state, _ = update(state, rollout, jax.random.key(1))
        path.append(state.params)
    return path


@jax.jit
def value_of(params, obs):
    return NETWORK.apply(params, obs)[1]


def expected_step(params, trajectory, update, config):
    """One update by the definition: each step of each episode that ended in this rollout."""
    reward, done = (
        np.asarray(trajectory.reward),
        np.asarray(trajectory.terminated | trajectory.truncated),
    )
    value, beyond = (np.asarray(value_of(params, x)) for x in (trajectory.obs, trajectory.next_obs))
    weights, goals, used = np.zeros(done.shape), np.zeros(done.shape), np.zeros(done.shape)
    for b in range(done.shape[1]):
        start = 0
        for end in np.flatnonzero(done[:, b]):
            if update * T <= end < (update + 1) * T:
                for t in range(start, end + 1):
                    total = sum(GAMMA ** (k - t) * reward[k, b] for k in range(t, end + 1))
                    if config.baseline == "value" and trajectory.truncated[end, b]:
                        total += GAMMA ** (end + 1 - t) * beyond[end, b]
                    goals[t, b], used[t, b] = total, 1.0
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
    def slope(params):
        policy, value = NETWORK.apply(params, trajectory.obs)
        log_policy = jax.nn.log_softmax(policy.logits)
        chosen = jnp.take_along_axis(log_policy, trajectory.action[..., None], axis=-1)[..., 0]
        error = 0.5 * jnp.square(value - goals) if config.baseline == "value" else 0.0 * value
        return ((-chosen * weights + config.vf_coef * error) * used).sum() / max(used.sum(), 1)

    return jax.tree.map(lambda x, g: x - 0.1 * g, params, slope(params)), used


@pytest.mark.parametrize(
    "options",
    [{}, {"baseline": "value", "normalize_advantage": True}, {"discount_gradient": True}],
)
def test_every_step_counts_once_its_episode_has_ended(options):
    config, trajectory = dataclasses.replace(CONFIG, **options), whole()
    path, count, waited = learn(config, parts(trajectory)), 0, 0
    for i in range(ROLLOUTS):
        expected, used = expected_step(path[i], trajectory, i, config)
        for x, y in zip(jax.tree.leaves(path[i + 1]), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
        count += used.sum()
        waited += used[: i * T].sum()
    assert waited > 5
    assert count > 0.8 * T * ROLLOUTS * B


@pytest.mark.parametrize("baseline", ["none", "value"])
def test_what_waits_longer_than_any_episode_is_learned_from_as_it_is(baseline):
    """Episodes without end: a step leaves with the return seen, a baseline adds v(next_obs)."""
    spec = SPEC._replace(max_episode_steps=0)  # the window is one rollout
    endless = whole(spec)._replace(terminated=jnp.zeros((T * ROLLOUTS, B), bool))
    endless = endless._replace(truncated=endless.terminated, next_obs=jnp.roll(endless.obs, -1, 0))
    config = dataclasses.replace(CONFIG, baseline=baseline)
    path = learn(config, parts(endless)[:2], spec)
    assert all(np.array_equal(*x) for x in zip(*map(jax.tree.leaves, path[:2]), strict=True))
    seen = jax.tree.map(lambda x: x[: 2 * T], endless)
    value, beyond = (NETWORK.apply(path[1], x)[1] for x in (seen.obs, seen.next_obs))
    total = (baseline == "value") * beyond[-1]
    goals = []
    for reward in seen.reward[::-1]:
        total = reward + GAMMA * total
        goals.insert(0, total)
    goals = jnp.stack(goals)[:T]

    def loss(params):
        policy, values = NETWORK.apply(params, seen.obs[:T])
        advantage = goals - (value[:T] if baseline == "value" else 0.0)
        error = 0.5 * jnp.square(values - goals) * (baseline == "value")
        return (-policy.log_prob(seen.action[:T]) * advantage + config.vf_coef * error).mean()

    for x, y, g in zip(
        *map(jax.tree.leaves, (path[2], path[1], jax.grad(loss)(path[1]))), strict=True
    ):
        np.testing.assert_allclose(x, y - 0.1 * g, rtol=1e-4, atol=1e-5)


def test_workers_together_are_one_with_all_their_environments():
    """Though they have unequally many steps that are ready."""
    config = dataclasses.replace(
        CONFIG, baseline="value", normalize_advantage=True, num_envs=4, total_timesteps=160
    )
    spec = SPEC._replace(num_envs=4)
    rollouts = parts(whole(spec, ends=0.2))
    alone = learn(config, rollouts, spec)[-1]

    def worker(share):
        average = lambda x: jax.lax.pmean(x, "workers")  # noqa: E731
        return learn(config, share, SPEC._replace(num_envs=2), average=average)[-1]

    shares = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(T, 2, 2, *x.shape[2:]), 1, 0), rollouts)
    together = jax.jit(jax.vmap(worker, axis_name="workers"))(shares)
    for x, y in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(x[0], y, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(x[0], x[1])


class Tilt:
    """A network that is its logits."""

    @staticmethod
    def apply(params, obs):
        return like((jnp.broadcast_to(params, (len(obs), 2)),)), jnp.zeros(len(obs))


def test_the_gradient_by_hand():
    """K26: logits (0, 0), action 0, return 2; and entropy is a bonus, not a cost."""

    def slope(params, ent_coef, goal):
        config = dataclasses.replace(CONFIG, ent_coef=ent_coef)
        given = jnp.zeros((1, 3)), jnp.array([0]), jnp.array([goal]), jnp.zeros(1)
        return jax.grad(lambda x: actor_critic_loss(Tilt, config, x, *given)[0])(params)

    np.testing.assert_allclose(slope(jnp.zeros(2), 0.0, 2.0), [-1.0, 1.0], atol=1e-6)
    tilted = slope(jnp.array([2.0, 0.0]), 0.5, 0.0)
    assert tilted[0] > 0.01 and tilted[1] < -0.01  # a step down brings them together


def test_returns_are_normalised_even_where_there_is_one():
    """K26b."""
    scaled = normalized_advantage(jnp.array([2.71, 1.9, 1.0]))
    np.testing.assert_allclose(scaled, [1.202703, 0.042954, -1.245657], atol=1e-5)
    np.testing.assert_array_equal(normalized_advantage(jnp.array([[3.7]])), [[0.0]])


@pytest.mark.slow
def test_the_short_corridor_asks_for_a_policy_of_chance():
    """T17: the best is -11.66, by going right 0.59 of the time; what is greedy never arrives."""
    run = rljax.train(
        "reinforce", "rljax/ShortCorridor", num_seeds=10, total_timesteps=100_000, gamma=1.0,
        num_reports=5, eval_episodes=0, progress=False,
    )  # fmt: skip
    last = np.asarray(run.metrics["charts/episodic_return"])[:, -1]
    assert -13 < last.mean() < -11.4
