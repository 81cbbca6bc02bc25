"""Dyna-Q and Dyna-Q+ (Sutton 1990), Sutton and Barto (2018), sections 8.2 and 8.3.

Each environment step is followed by a Q-learning update and by planning updates with a learned
model. The model holds the last observed outcome of every action, so it assumes a deterministic
environment.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.agents.tabular.common import (
    ControlConfig,
    QTable,
    epsilon_greedy,
    initial_state,
    q_table,
    tabular_agent,
    update_entry,
)
from rljax.config import config, option
from rljax.ops import td
from rljax.types import Agent, Array, EnvSpec, PyTree, Transition, identity


@config
class PlanningStepsConfig(ControlConfig):
    """Options of every agent that plans with a learned model."""

    planning_steps: int = option(10, "planning updates per environment step", low=0)

    def counts(self) -> dict[str, int]:
        return super().counts() | {"environment steps": self.total_timesteps}


@config
class DynaQConfig(PlanningStepsConfig):
    """Options of Dyna-Q."""

    sampling: str = option(
        "pairs", "planning samples visited pairs (s, a), or a state and then a",
        choices=("pairs", "states"),
    )  # fmt: skip


@config
class DynaQPlusConfig(PlanningStepsConfig):
    """Options of Dyna-Q+."""

    bonus: float = option(1e-3, "factor kappa of the exploration bonus kappa sqrt(tau)", low=0)


class LearnedModel(NamedTuple):
    """The last observed outcome of every action in every state.

    Attributes:
      reward: `[S, A]`.
      next_obs: the state reached, `[S, A]` int32.
      terminated: the episode ended, `[S, A]` bool.
      is_known: planning may use the pair, `[S, A]` bool.
    """

    reward: Array
    next_obs: Array
    terminated: Array
    is_known: Array


class Visited(NamedTuple):
    """The pairs or states that planning samples from, in the order of their first visit.

    Attributes:
      items: pairs `[S * A]`, as s * A + a, or states `[S]`.
      size: number of visited items, int32.
      time: environment steps so far, int32.
      last_tried: time at which an action was last selected, `[S, A]` int32.
    """

    items: Array
    size: Array
    time: Array
    last_tried: Array


def empty_model(spec: EnvSpec) -> LearnedModel:
    """Returns the initial model: every action stays in its state with reward 0."""
    shape = (spec.num_states, spec.num_actions)
    own_state = jnp.broadcast_to(jnp.arange(spec.num_states, dtype=jnp.int32)[:, None], shape)
    return LearnedModel(jnp.zeros(shape), own_state, jnp.zeros(shape, bool), jnp.zeros(shape, bool))


def updated_model(model: LearnedModel, step: Transition) -> LearnedModel:
    """Returns the model after a step. Truncation is not part of the model."""
    index = step.obs, step.action
    return LearnedModel(
        model.reward.at[index].set(step.reward), model.next_obs.at[index].set(step.next_obs),
        model.terminated.at[index].set(step.terminated), model.is_known.at[index].set(True),
    )  # fmt: skip


def dyna_q(
    config: DynaQConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes a Dyna-Q agent (the tabular Dyna-Q algorithm of section 8.2).

    `planning_steps=0` is Q-learning.

    Args:
      config: options; floats may be tracers.
      spec: description of the environment, with numbered states and discrete actions.
      average: mean over workers; each worker has its own model.

    Example:
      >>> import jax, rljax
      >>> env = rljax.build("rljax/DynaMaze", num_envs=1)
      >>> agent = dyna_q(DynaQConfig(planning_steps=50), env.spec)
      >>> agent.init(jax.random.key(0)).model.reward.shape
      (54, 4)
    """
    return _dyna(config, spec, by_pairs=config.sampling == "pairs", average=average)


def dyna_q_plus(
    config: DynaQPlusConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes a Dyna-Q+ agent: Dyna-Q with an exploration bonus during planning (section 8.3).

    The planning reward of an action that was last tried tau steps ago is r + bonus sqrt(tau).
    Planning uses all actions of visited states; an untried action stays in its state with r = 0.

    Args:
      config: options; floats may be tracers.
      spec: description of the environment, with numbered states and discrete actions.
      average: mean over workers; each worker has its own model.
    """
    return _dyna(config, spec, by_pairs=False, all_actions=True, average=average)


def _dyna(config, spec, *, by_pairs, average, all_actions=False):
    num_items = spec.num_states * (spec.num_actions if by_pairs else 1)
    bonus = getattr(config, "bonus", 0.0)

    def init_state():
        zero, model = jnp.int32(0), empty_model(spec)
        last_tried = jnp.zeros(model.reward.shape, jnp.int32)
        visited = Visited(jnp.zeros(num_items, jnp.int32), zero, zero, last_tried)
        return initial_state(q_table(config, spec), model=model, planner=visited)

    def observe(q, model, visited, step):
        obs, action = step.obs, step.action
        is_new = ~(model.is_known[obs, action] if by_pairs else model.is_known[obs].any())
        item = obs * spec.num_actions + action if by_pairs else obs
        slot = jnp.where(is_new, visited.size, num_items)  # out of bounds: the write is dropped
        time = visited.time + 1
        visited = Visited(
            visited.items.at[slot].set(item.astype(jnp.int32), mode="drop"),
            visited.size + is_new, time, visited.last_tried.at[obs, action].set(time),
        )  # fmt: skip
        model = updated_model(model, step)
        if all_actions:
            model = model._replace(is_known=model.is_known.at[obs].set(q[obs] > -jnp.inf))
        return model, visited

    def sample_pair(model, visited, noise):
        item = visited.items[random_index(visited.size, noise[0])]
        if by_pairs:
            return item // spec.num_actions, item % spec.num_actions
        rank = jnp.cumsum(model.is_known[item])
        return item, (rank > random_index(rank[-1], noise[1])).argmax()

    def q_learning_update(q, index, reward, terminated, next_obs):
        td_target = td.td_target(reward, terminated, config.gamma, q[next_obs].max())
        return update_entry(q, index, td_target, config.learning_rate)

    def learn(state, step, noise):
        index = step.obs, step.action
        q, metric = q_learning_update(
            state.params.q, index, step.reward, step.terminated, step.next_obs
        )
        model, visited = observe(q, state.model, state.planner, step)

        def plan(q, noise):
            index = sample_pair(model, visited, noise)
            tau = (visited.time - visited.last_tried[index]).astype(jnp.float32)
            reward = model.reward[index] + bonus * jnp.sqrt(tau)
            terminated, next_obs = model.terminated[index], model.next_obs[index]
            return q_learning_update(q, index, reward, terminated, next_obs)[0], None

        q, _ = jax.lax.scan(plan, q, noise)
        return state._replace(params=QTable(q), model=model, planner=visited), metric

    return tabular_agent(
        spec, init_state, learn, epsilon_greedy(config, spec),
        noise_shape=(config.planning_steps, 2), average=average,
    )  # fmt: skip


def random_index(count: Array, uniform: Array) -> Array:
    """Returns an index below `count` from a uniform number in [0, 1)."""
    index = (uniform * count.astype(jnp.float32)).astype(jnp.int32)
    return jnp.minimum(index, count - 1)  # rounding may give `count`
