"""The training loop: collect a rollout, update the agent, repeat.

One loop serves on-policy and off-policy agents, because an agent's `update` decides what to do
with a rollout. Training is a loop over `Learner.step`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.ops import random
from rljax.ops.observations import mean_legal_actions
from rljax.ops.precision import in_32_bits
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
    noise_key: Key | None = None,
) -> tuple[PyTree, PyTree, Transition, Array]:
    """Collects `num_steps` steps of interaction in every environment.

    The random numbers of all steps are drawn before the loop, in one vectorized call. Each row of
    the agent's noise serves `agent.noise_repeat` steps.

    Args:
      env: a batched environment that resets itself.
      agent: the agent.
      agent_state: state of the agent, which acting does not change.
      env_state: states of the environments, `[B, ...]`.
      obs: observations to act on first, `[B, *obs_shape]`.
      key: random key.
      num_steps: length of the rollout, T.
      noise_key: key of the agent's noise; by default it is derived from `key`.

    Returns:
      The new environment states, the next observations, the trajectory `[T, B]`, and the rewards
      `[T, B]` before any clipping.
    """
    act_key, env_key = random.split(key)
    act_key = act_key if noise_key is None else noise_key
    repeat = min(agent.noise_repeat, num_steps)
    act_noise = agent.sample_noise(act_key, -(-num_steps // repeat))
    if repeat > 1:
        act_noise = jax.tree.map(lambda x: x[np.arange(num_steps) // repeat], act_noise)
    noise = act_noise, env.sample_noise(env_key, num_steps)

    def act_once(carry, noise):
        env_state, obs = carry
        act_noise, env_noise = noise
        action, extras = agent.act(agent_state, obs, act_noise)
        env_state, step = env.step(env_state, action, env_noise)
        transition = Transition(
            obs, action, step.reward, step.terminated, step.truncated, step.next_obs, extras
        )
        return (env_state, step.obs), (transition, step.info.get("unclipped_reward"))

    (env_state, obs), (trajectory, unclipped) = jax.lax.scan(act_once, (env_state, obs), noise)
    return env_state, obs, trajectory, trajectory.reward if unclipped is None else unclipped


def make_learner(agent: Agent, env: Env, num_steps: int) -> Learner:
    """Combines an agent and a batched environment into a training loop.

    Args:
      agent: the agent, built for `env.spec`.
      env: a batched environment that resets itself, such as `rljax.build` returns.
      num_steps: length of the rollout before each update, T.

    Returns:
      The `Learner`, whose `step` collects one rollout `[T, B]` and updates the agent.

    Example:
      >>> import jax, rljax
      >>> env = rljax.build("rljax/Maze", num_envs=2)
      >>> agent = rljax.q_learning(rljax.AGENTS["q_learning"].config(), env.spec)
      >>> learner = rljax.make_learner(agent, env, num_steps=8)
      >>> state = jax.jit(learner.init)(jax.random.key(0))
      >>> state, metrics = learner.step(state)
      >>> int(state.num_updates)
      1
    """
    rollouts = agent.noise_repeat // num_steps  # with the same noise of the agent
    repeats = rollouts > 1

    @in_32_bits
    def init(key: Key, worker: int | Array = 0) -> TrainState:
        agent_key, key = jax.random.split(key)  # the same agent in all workers
        env_key, key = jax.random.split(jax.random.fold_in(key, worker))  # different environments
        env_state, obs = env.reset(env_key)
        episodes = jnp.zeros(env.spec.num_envs), jnp.zeros(env.spec.num_envs, jnp.int32)
        noise_key = key if repeats else None
        agent_state = agent.init(agent_key)
        return TrainState(agent_state, env_state, obs, key, episodes, jnp.int32(0), noise_key)

    @in_32_bits
    def step(state):
        act_key, update_key, key, *new = random.split(state.key, 4 if repeats else 3)
        is_new = state.num_updates % max(rollouts, 1) == 0
        noise_key = jnp.where(is_new, new[0], state.noise_key) if repeats else None
        env_state, obs, trajectory, reward = rollout(
            env, agent, state.agent, state.env, state.obs, act_key, num_steps, noise_key
        )
        agent_state, metrics = agent.update(state.agent, trajectory, update_key)
        unclipped = trajectory._replace(reward=reward)
        episodes, charts = episode_metrics(unclipped, state.episodes)
        if env.spec.action_mask:
            charts |= {"charts/legal_actions": mean_legal_actions(env.spec, trajectory.obs)}
        num_updates = state.num_updates + 1
        state = TrainState(agent_state, env_state, obs, key, episodes, num_updates, noise_key)
        return state, {**charts, **metrics}

    return Learner(init, jax.jit(step, inline=True))  # traced once for all its callers


def episode_metrics(trajectory: Transition, episodes: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """Returns the return and length of episodes that ended in a trajectory, and the mean reward.

    They are computed in one short scan after the rollout, which keeps the environment loop small.

    Args:
      trajectory: `[T, B]`.
      episodes: return and length so far of the episodes in progress, `[B]` each.

    Returns:
      `episodes` after the trajectory, and metrics averaged over the episodes that ended.
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
    """Metrics accumulated over updates; its size does not depend on their number.

    Attributes:
      totals: sum and weight of each metric.
      nonfinite: index of the first update in which the metric was NaN or infinite, else NEVER.
    """

    totals: dict[str, Mean]
    nonfinite: dict[str, Array]


NEVER = jnp.iinfo(jnp.int32).max


def empty_report(learner: Learner, state: PyTree) -> Report:
    """Returns the report before any update."""
    metrics = jax.eval_shape(learner.step, state)[1]
    zeros = {name: Mean(jnp.float32(0), jnp.float32(0)) for name in metrics}
    return Report(zeros, {name: jnp.int32(NEVER) for name in metrics})


class Rows(NamedTuple):
    """A report as vectors `[M]`, one number a metric: adding them one by one takes longer."""

    total: Array
    weight: Array
    nonfinite: Array


def rows_of(metrics: Metrics, names: list[str], nonfinite: Array) -> Rows:
    """Returns the metrics with these names as vectors."""
    values = [metrics[name] for name in names]
    means = [x if isinstance(x, Mean) else Mean(x, jnp.float32(1)) for x in values]
    total = jnp.stack([jnp.float32(mean.total) for mean in means])
    weight = jnp.stack([jnp.float32(mean.weight) for mean in means])
    return Rows(total, weight, nonfinite)


def add_update(rows: Rows, metrics: Metrics, names: list[str], update: Array) -> Rows:
    """Returns the report with the metrics of one more update."""
    new = rows_of(metrics, names, update)
    first = jnp.where(jnp.isfinite(new.total), NEVER, update)
    return Rows(
        rows.total + new.total, rows.weight + new.weight, jnp.minimum(rows.nonfinite, first)
    )


def summary(report: Report) -> Metrics:
    """Returns the means over the updates of a report; NaN where the weight is 0."""
    return {
        name: jnp.where(mean.weight > 0, mean.total / mean.weight, jnp.nan)
        for name, mean in report.totals.items()
    }


def advance(
    learner: Learner, state: TrainState, report: Report, num_updates: int | Array
) -> tuple[TrainState, Report]:
    """Runs `num_updates` steps of a learner.

    The number may be traced, so that one compiled program serves any number.
    """
    names = sorted(report.totals)

    def body(_, carry):
        state, rows = carry
        update = state.num_updates
        state, metrics = learner.step(state)
        return state, add_update(rows, metrics, names, update)

    rows = rows_of(report.totals, names, jnp.stack([report.nonfinite[name] for name in names]))
    state, rows = jax.lax.fori_loop(0, num_updates, body, (state, rows))
    totals = map(Mean, rows.total, rows.weight)
    nonfinite = dict(zip(names, rows.nonfinite, strict=True))
    return state, Report(dict(zip(names, totals, strict=True)), nonfinite)


@in_32_bits
def train(
    learner: Learner, key: Key, num_updates: int, num_reports: int = 1, worker: int | Array = 0
) -> tuple[TrainState, Metrics]:
    """Initializes a learner and runs it: one function to `jit` and to `vmap` over keys.

    Args:
      learner: such as `make_learner` returns.
      key: random key of the run.
      num_updates: number of updates.
      num_reports: points of the learning curves; it must divide `num_updates`.
      worker: index of the worker, where several train one agent together.

    Returns:
      The final `TrainState`, and metrics `[num_reports]`, each a mean over
      `num_updates / num_reports` updates.

    Raises:
      ValueError: `num_reports` does not divide `num_updates`.

    Example:
      >>> import jax, rljax
      >>> env = rljax.build("rljax/Maze", num_envs=2)
      >>> agent = rljax.q_learning(rljax.AGENTS["q_learning"].config(), env.spec)
      >>> learner = rljax.make_learner(agent, env, num_steps=8)
      >>> run = jax.jit(jax.vmap(lambda key: train(learner, key, num_updates=6, num_reports=3)))
      >>> state, metrics = run(jax.random.split(jax.random.key(0), 4))  # 4 seeds
      >>> metrics["charts/reward"].shape
      (4, 3)
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
