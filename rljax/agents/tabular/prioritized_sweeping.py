"""Prioritized sweeping for deterministic environments (Moore and Atkeson 1993).

Sutton and Barto (2018), section 8.4. The queue is a table of priorities: the priority of a
state-action pair is its absolute TD error when last computed, and pairs above a threshold are
queued.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.agents.tabular.common import (
    QTable,
    epsilon_greedy,
    initial_state,
    q_table,
    tabular_agent,
    td_error_metric,
)
from rljax.agents.tabular.dyna import (
    LearnedModel,
    PlanningStepsConfig,
    empty_model,
    updated_model,
)
from rljax.config import config, option
from rljax.ops import td
from rljax.types import Agent, Array, EnvSpec, PyTree, identity


@config
class PrioritizedSweepingConfig(PlanningStepsConfig):
    """Options of prioritized sweeping."""

    priority_threshold: float = option(
        1e-4, "threshold theta: pairs with smaller priority are not queued", low=0
    )

    def counts(self) -> dict[str, int]:
        name = "planning steps (`planning_steps` after each step)"
        return super().counts() | {name: self.total_timesteps * self.planning_steps}


class PriorityQueue(NamedTuple):
    """The priorities of all state-action pairs.

    Attributes:
      priority: `[S, A]`.
      num_backups: planning updates so far, int32.
    """

    priority: Array
    num_backups: Array


def prioritized_sweeping(
    config: PrioritizedSweepingConfig, spec: EnvSpec, *,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a prioritized sweeping agent.

    A step stores its transition in the model and queues its state-action pair. Then up to
    `planning_steps` times the first pair of the queue is updated, and the priorities of all pairs
    that the model predicts to lead to its state are computed again.

    Args:
      config: options; floats may be tracers.
      spec: description of the environment, with numbered states and discrete actions.
      average: mean over workers; each worker has its own model.
    """

    def init_state():
        table = q_table(config, spec)
        queue = PriorityQueue(jnp.zeros_like(table.q), jnp.int32(0))
        return initial_state(table, model=empty_model(spec), planner=queue)

    def model_td_error(q, model, index):
        next_v = q[model.next_obs[index]].max(axis=-1)
        reward, terminated = model.reward[index], model.terminated[index]
        return td.td_target(reward, terminated, config.gamma, next_v) - q[index]

    def plan(model: LearnedModel, carry, _):
        q, priority, num_backups = carry
        index = jnp.unravel_index(priority.argmax(), priority.shape)
        is_due = priority[index] > config.priority_threshold
        td_error = jnp.where(is_due, model_td_error(q, model, index), 0.0)
        q = q.at[index].add(config.learning_rate * td_error)
        priority = priority.at[index].multiply(jnp.where(is_due, 0.0, 1.0))
        is_predecessor = model.is_known & (model.next_obs == index[0]) & ~model.terminated
        v = q[index[0]].max()
        predecessor_error = jnp.abs(model.reward + config.gamma * v - q)
        priority = jnp.where(is_predecessor & is_due, predecessor_error, priority)
        return (q, priority, num_backups + is_due), None

    def learn(state, step, noise):
        del noise
        q, queue = state.params.q, state.planner
        model = updated_model(state.model, step)
        index = step.obs, step.action
        td_error = model_td_error(q, model, index)
        priority = queue.priority.at[index].set(jnp.abs(td_error))
        (q, priority, num_backups), _ = jax.lax.scan(
            lambda carry, x: plan(model, carry, x), (q, priority, queue.num_backups),
            length=config.planning_steps,
        )  # fmt: skip
        queue = PriorityQueue(priority, num_backups)
        state = state._replace(params=QTable(q), model=model, planner=queue)
        return state, td_error_metric(td_error)

    return tabular_agent(spec, init_state, learn, epsilon_greedy(config, spec), average=average)
