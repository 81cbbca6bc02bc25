"""Dyna-Q and Dyna-Q+ (Sutton 1990), Sutton and Barto 2018, sections 8.2 and 8.3.

Q-learning from every step, and then from steps that a model of the world remembers. The model holds
what each action last led to: it is right in worlds without chance.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.agents.tabular.common import (
    ControlConfig,
    QTable,
    TableState,
    error_of,
    exploring,
    q_table,
    tabular,
)
from rljax.config import config, option
from rljax.ops import td
from rljax.types import Agent, Array, EnvSpec, PyTree, Shared, Transition, identity


@config
class PlanningStepsConfig(ControlConfig):
    planning_steps: int = option(10, "corrections from the model after each real one", low=0)


@config
class DynaQConfig(PlanningStepsConfig):
    sampling: str = option(
        "pairs", "what is drawn alike: visited pairs of state and action; or visited states, and "
        "then the actions tried in them", choices=("pairs", "states"),
    )  # fmt: skip


@config
class DynaQPlusConfig(PlanningStepsConfig):
    bonus: float = option(1e-3, "kappa, the bonus by the root of the steps not tried", low=0)


class Model(NamedTuple):
    """What each action last led to, `[S, A]`."""

    reward: Array
    next_obs: Array
    terminated: Array
    known: Array  # bool: it may be planned with


class Visited(NamedTuple):
    """What can be drawn from, in the order in which it was first seen."""

    items: Array  # pairs [S * A], as s * A + a, or states [S]
    size: Array  # int32, of those that are there
    clock: Array  # int32, real steps so far
    tried: Array  # [S, A] int32, the clock when an action was last taken


def unknown(spec: EnvSpec) -> Model:
    """Before anything was seen: an action leads nowhere and gives nothing."""
    shape = (spec.num_states, spec.num_actions)
    place = jnp.broadcast_to(jnp.arange(spec.num_states, dtype=jnp.int32)[:, None], shape)
    return Model(jnp.zeros(shape), place, jnp.zeros(shape, bool), jnp.zeros(shape, bool))


def remembered(model: Model, step: Transition) -> Model:
    """The model after a step. A time limit is none of the world's: it is not remembered."""
    at = step.obs, step.action
    return Model(
        model.reward.at[at].set(step.reward), model.next_obs.at[at].set(step.next_obs),
        model.terminated.at[at].set(step.terminated), model.known.at[at].set(True),
    )  # fmt: skip


def dyna_q(
    config: DynaQConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes a Dyna-Q agent; 0 planning steps are Q-learning.

    Each worker has its own model, of what it saw itself.
    """
    return _dyna(config, spec, by_pairs=config.sampling == "pairs", average=average)


def dyna_q_plus(
    config: DynaQPlusConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes a Dyna-Q+ agent: Dyna-Q that is curious about what it has not tried for long.

    In planning an action not tried for t steps gives `bonus sqrt(t)` more; and in a state that was
    visited all actions are planned with, of which an untried one leads back to where it was taken.
    """
    return _dyna(config, spec, by_pairs=False, all_actions=True, average=average)


def _dyna(config, spec, *, by_pairs, average, all_actions=False):
    num_items = spec.num_states * (spec.num_actions if by_pairs else 1)
    bonus = getattr(config, "bonus", 0.0)

    def begin():
        zero, model = jnp.int32(0), unknown(spec)
        tried = jnp.zeros(model.reward.shape, jnp.int32)
        visited = Visited(jnp.zeros(num_items, jnp.int32), zero, zero, tried)
        return TableState(q_table(config, spec), Shared(zero), model=(model, visited))

    def observe(model, visited, step):
        obs, action = step.obs, step.action
        is_new = ~(model.known[obs, action] if by_pairs else model.known[obs].any())
        item = obs * spec.num_actions + action if by_pairs else obs
        place = jnp.where(is_new, visited.size, num_items)
        visited = Visited(
            visited.items.at[place].set(item.astype(jnp.int32), mode="drop"),
            visited.size + is_new, visited.clock + 1,
            visited.tried.at[obs, action].set(visited.clock + 1),
        )  # fmt: skip
        model = remembered(model, step)
        if all_actions:
            model = model._replace(known=model.known.at[obs].set(True))
        return model, visited

    def draw(model, visited, noise):
        """One of what was visited, alike: `-> obs, action`."""
        item = visited.items[_one_of(visited.size, noise[0])]
        if by_pairs:
            return item // spec.num_actions, item % spec.num_actions
        rank = jnp.cumsum(model.known[item])
        return item, (rank > _one_of(rank[-1], noise[1])).argmax()

    def correct(q, obs, action, reward, terminated, next_obs):
        target = td.td_target(reward, terminated, config.gamma, q[next_obs].max())
        error = target - q[obs, action]
        return q.at[obs, action].add(config.learning_rate * error), error

    def learn(state, step, noise):
        q, error = correct(
            state.params.q, step.obs, step.action, step.reward, step.terminated, step.next_obs
        )
        known: Any = state.model
        model, visited = observe(known[0], known[1], step)

        def plan(q, noise):
            obs, action = draw(model, visited, noise)
            age = (visited.clock - visited.tried[obs, action]).astype(jnp.float32)
            reward = model.reward[obs, action] + bonus * jnp.sqrt(age)
            terminated, next_obs = model.terminated[obs, action], model.next_obs[obs, action]
            return correct(q, obs, action, reward, terminated, next_obs)[0], None

        q, _ = jax.lax.scan(plan, q, noise)
        return state._replace(params=QTable(q), model=(model, visited)), error_of(error)

    noise = (config.planning_steps, 2)
    return tabular(spec, begin, learn, exploring(config, spec), noise=noise, average=average)


def _one_of(count: Array, uniform: Array) -> Array:
    """An index below `count`, by a number in [0, 1)."""
    index = (uniform * count.astype(jnp.float32)).astype(jnp.int32)
    return jnp.minimum(index, count - 1)  # the product may be rounded up
