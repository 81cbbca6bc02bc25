"""The one training loop: act for a while, update, repeat.

On-policy or off-policy is not the loop's business: it is what an agent's `update` does with
the trajectory. So there is one loop, and it is a scan over `Learner.step`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.types import (
    Agent,
    Array,
    Env,
    Key,
    Learner,
    Mean,
    Metrics,
    PyTree,
    TrainState,
    Transition,
)


def rollout(
    env: Env,
    agent: Agent,
    agent_state: PyTree,
    env_state: PyTree,
    obs: PyTree,
    key: Key,
    num_steps: int,
) -> tuple[PyTree, PyTree, Transition]:
    """Acts for `num_steps`. Returns `(env_state, obs, trajectory[T, B])`.

    All random numbers of the rollout are drawn before its loop, in one vectorised call.
    """
    act_key, env_key = jax.random.split(key)
    noise = agent.sample_noise(act_key, num_steps), env.sample_noise(env_key, num_steps)

    def act_once(carry, noise):
        env_state, obs = carry
        act_noise, env_noise = noise
        action, extras = agent.act(agent_state, obs, act_noise)
        env_state, step = env.step(env_state, action, env_noise)
        transition = Transition(
            obs, action, step.reward, step.terminated, step.truncated, step.next_obs, extras
        )
        return (env_state, step.obs), transition

    (env_state, obs), trajectory = jax.lax.scan(act_once, (env_state, obs), noise)
    return env_state, obs, trajectory


def make_learner(agent: Agent, env: Env, num_steps: int) -> Learner:
    """Joins an agent to a batched environment: `num_steps` of each, then an update."""

    def init(key: Key, worker: int | Array = 0) -> TrainState:
        agent_key, key = jax.random.split(key)  # workers share the agent ...
        env_key, key = jax.random.split(jax.random.fold_in(key, worker))  # ... and nothing else
        env_state, obs = env.reset(env_key)
        episodes = jnp.zeros(env.spec.num_envs), jnp.zeros(env.spec.num_envs, jnp.int32)
        return TrainState(agent.init(agent_key), env_state, obs, key, episodes, jnp.int32(0))

    def step(state):
        act_key, update_key, key = jax.random.split(state.key, 3)
        env_state, obs, trajectory = rollout(
            env, agent, state.agent, state.env, state.obs, act_key, num_steps
        )
        agent_state, metrics = agent.update(state.agent, trajectory, update_key)
        episodes, chart = episode_metrics(trajectory, state.episodes)
        state = TrainState(agent_state, env_state, obs, key, episodes, state.num_updates + 1)
        return state, {**chart, **metrics}

    return Learner(init, jax.jit(step, inline=True))  # traced once, wherever it is called from


def episode_metrics(trajectory: Transition, episodes: PyTree) -> tuple[PyTree, Metrics]:
    """What the episodes that ended inside the trajectory were like, and the mean reward a step.

    `episodes` is the return and the length `[B]` so far of those under way, carried from one
    trajectory to the next. Done here in one short scan, not in the environments' loop.
    """
    done = trajectory.terminated | trajectory.truncated

    def forward(carry, step):
        reward, done = step
        total, length = carry[0] + reward, carry[1] + 1
        ended = jnp.where(done, total, 0.0), jnp.where(done, length, 0)
        return (jnp.where(done, 0.0, total), jnp.where(done, 0, length)), ended

    episodes, (returns, lengths) = jax.lax.scan(forward, episodes, (trajectory.reward, done))
    count = done.sum().astype(jnp.float32)
    return episodes, {
        "charts/reward": trajectory.reward.mean(),
        "charts/episodic_return": Mean(returns.sum(), count),
        "charts/episodic_length": Mean(lengths.sum().astype(jnp.float32), count),
    }


class Report(NamedTuple):
    """Metrics summed over updates: its size does not depend on how many."""

    totals: dict[str, Mean]
    nonfinite: dict[str, Array]  # the number of the first update that was not finite, or NEVER


NEVER = jnp.iinfo(jnp.int32).max


def empty_report(learner: Learner, state: PyTree) -> Report:
    """The report of no updates."""
    metrics = jax.eval_shape(learner.step, state)[1]
    zeros = {name: Mean(jnp.float32(0), jnp.float32(0)) for name in metrics}
    return Report(zeros, {name: jnp.int32(NEVER) for name in metrics})


def add_to_report(report: Report, metrics: Metrics, update: Array) -> Report:
    """Adds the metrics of one update."""
    totals, nonfinite = {}, {}
    for name, value in metrics.items():
        mean = value if isinstance(value, Mean) else Mean(value, jnp.float32(1))
        old = report.totals[name]
        totals[name] = Mean(old.total + mean.total, old.weight + mean.weight)
        first = jnp.where(jnp.isfinite(mean.total), NEVER, update)
        nonfinite[name] = jnp.minimum(report.nonfinite[name], first)
    return Report(totals, nonfinite)


def summary(report: Report) -> Metrics:
    """Means over the updates of a report; NaN where there was nothing to average."""
    return {
        name: jnp.where(mean.weight > 0, mean.total / mean.weight, jnp.nan)
        for name, mean in report.totals.items()
    }


def advance(
    learner: Learner, state: TrainState, report: Report, num_updates: int | Array
) -> tuple[TrainState, Report]:
    """`num_updates` steps of a learner; the number may be traced, so one program serves any."""

    def body(_, carry):
        state, report = carry
        update = state.num_updates
        state, metrics = learner.step(state)
        return state, add_to_report(report, metrics, update)

    return jax.lax.fori_loop(0, num_updates, body, (state, report))


def train(
    learner: Learner, key: Key, num_updates: int, num_reports: int = 1, worker: int | Array = 0
) -> tuple[TrainState, Metrics]:
    """Init and `num_updates` steps in one traceable function: jit it, vmap it over keys.

    Returns the last state, and metrics `[num_reports]`, each a mean over
    `num_updates / num_reports` updates, which must divide.
    """
    if num_updates % num_reports:
        raise ValueError(
            f"`num_reports` is {num_reports}, but it must divide the {num_updates} updates."
        )
    state = learner.init(key, worker)
    empty = empty_report(learner, state)

    def one_report(state, _):
        state, report = advance(learner, state, empty, num_updates // num_reports)
        return state, summary(report)

    return jax.lax.scan(one_report, state, length=num_reports)
