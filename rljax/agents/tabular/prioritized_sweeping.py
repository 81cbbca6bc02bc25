"""Prioritized sweeping for worlds without chance (Moore and Atkeson 1993).

Sutton and Barto 2018, section 8.4. The queue is a table of priorities: an entry has the size of its
error as it was last computed, and waits while that is above a threshold.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.agents.tabular.common import QTable, TableState, error_of, exploring, q_table, tabular
from rljax.agents.tabular.dyna import Model, PlanningStepsConfig, remembered, unknown
from rljax.config import config, option
from rljax.ops import td
from rljax.types import Agent, Array, EnvSpec, PyTree, Shared, identity


@config
class PrioritizedSweepingConfig(PlanningStepsConfig):
    priority_threshold: float = option(1e-4, "theta: smaller errors do not wait", low=0)


class Queue(NamedTuple):
    priority: Array  # [S, A]
    num_backups: Array  # int32, corrections so far


def prioritized_sweeping(
    config: PrioritizedSweepingConfig, spec: EnvSpec, *,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a prioritized sweeping agent.

    After each step the `planning_steps` largest errors are corrected, as far as any wait, and each
    time the errors of all actions known to lead to that state are computed anew. A real step is
    corrected in its turn, not at once.
    """

    def begin():
        table = q_table(config, spec)
        queue = Queue(jnp.zeros_like(table.q), jnp.int32(0))
        return TableState(table, Shared(jnp.int32(0)), model=(unknown(spec), queue))

    def error_at(q, model, place):
        value = q[model.next_obs[place]].max(axis=-1)
        reward, terminated = model.reward[place], model.terminated[place]
        return td.td_target(reward, terminated, config.gamma, value) - q[place]

    def plan(model: Model, carry, _):
        q, priority, count = carry
        place = jnp.unravel_index(priority.argmax(), priority.shape)
        due = priority[place] > config.priority_threshold
        error = jnp.where(due, error_at(q, model, place), 0.0)
        q = q.at[place].add(config.learning_rate * error)
        priority = priority.at[place].multiply(jnp.where(due, 0.0, 1.0))
        leads_here = model.known & (model.next_obs == place[0]) & ~model.terminated
        value = q[place[0]].max()
        errors = jnp.abs(model.reward + config.gamma * value - q)
        priority = jnp.where(leads_here & due, errors, priority)
        return (q, priority, count + due), None

    def learn(state, step, noise):
        del noise
        q, (model, queue) = state.params.q, state.model
        model = remembered(model, step)
        place = step.obs, step.action
        error = error_at(q, model, place)
        priority = queue.priority.at[place].set(jnp.abs(error))
        (q, priority, count), _ = jax.lax.scan(
            lambda carry, x: plan(model, carry, x), (q, priority, queue.num_backups),
            length=config.planning_steps,
        )  # fmt: skip
        return state._replace(params=QTable(q), model=(model, Queue(priority, count))), error_of(
            error
        )

    return tabular(spec, begin, learn, exploring(config, spec), average=average)
