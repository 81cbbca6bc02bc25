"""Shared parts of the tabular agents: options, epsilon-greedy acting, the loop over a rollout.

An algorithm is a function `learn` of one step of one environment. The loop calls it step by step
and, within a time step, for one environment after another. So T updates with rollouts of one step
equal one update with a rollout of T steps, and the step size does not depend on the number of
environments.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from rljax.agents.acting import Acting
from rljax.config import RunConfig, config, option
from rljax.ops import random, td
from rljax.ops.observations import field, legal_values, obs_structs, split_mask, state_index
from rljax.types import (
    Agent,
    Array,
    EnvSpec,
    Mean,
    PyTree,
    Shared,
    Transition,
    identity,
    sample_one,
)


@config
class TableConfig(RunConfig):
    """Options of every algorithm that learns a table."""

    total_timesteps: int = option(20_000, "environment steps of the whole run", low=1)
    num_envs: int = option(1, "number of parallel environments, which share the table", low=1)
    num_steps: int = option(1, "environment steps per update; 1 is the textbook algorithm", low=1)
    learning_rate: float = option(0.1, "step size alpha", above=0)
    initial_value: float = option(0.0, "initial value of every table entry")


@config
class ControlConfig(TableConfig):
    """Options of the control algorithms, which act epsilon-greedily."""

    eps_start: float = option(0.1, "initial epsilon of the epsilon-greedy policy", low=0, high=1)
    eps_end: float = option(0.1, "final epsilon of the epsilon-greedy policy", low=0, high=1)
    exploration_fraction: float = option(
        0.5, "fraction of training over which epsilon is annealed linearly", above=0, high=1
    )


class QTable(NamedTuple):
    """Action values; -inf for actions that an action mask showed to be illegal."""

    q: Array  # [S, A]


class VTable(NamedTuple):
    """State values."""

    v: Array  # [S]


class TableState(NamedTuple):
    """The state of a tabular agent.

    Attributes:
      params: the table, such as a `QTable`.
      num_updates: updates done, which set epsilon.
      episode: what the algorithm stores about the current episode of each environment, `[B, ...]`.
      model: learned model of the environment, for agents that plan.
      planner: what the planning algorithm stores, such as a queue of priorities.
    """

    params: PyTree
    num_updates: Shared
    episode: PyTree = ()
    model: PyTree = ()
    planner: PyTree = ()


def initial_state(
    params: PyTree, episode: PyTree = (), model: PyTree = (), planner: PyTree = ()
) -> TableState:
    """Returns a state before the first update; `episode` is that of a single environment."""
    return TableState(params, Shared(jnp.int32(0)), episode, model, planner)


def q_table(config: TableConfig, spec: EnvSpec) -> QTable:
    """Returns the initial action values."""
    return QTable(jnp.full((spec.num_states, spec.num_actions), config.initial_value, jnp.float32))


def v_table(config: TableConfig, spec: EnvSpec) -> VTable:
    """Returns the initial state values."""
    return VTable(jnp.full(spec.num_states, config.initial_value, jnp.float32))


def current_epsilon(config: ControlConfig, state: TableState) -> Array:
    """Returns the probability of a random action at the current update."""
    duration = config.exploration_fraction * config.num_updates
    count = state.num_updates.value
    return td.epsilon_schedule(count, config.eps_start, config.eps_end, duration)


def epsilon_greedy(config: ControlConfig, spec: EnvSpec) -> Acting:
    """Acts epsilon-greedily on a table; ties are broken uniformly at random, also in `greedy`."""

    def sample_noise(key, num_steps):
        return random.uniform(key, (num_steps, spec.num_envs, spec.num_actions + 1))

    def select_action(state, obs, noise, epsilon):
        q = legal_values(spec, obs, state.params.q[state_index(spec, obs)])
        return td.epsilon_greedy(q, epsilon, noise[..., 0], noise[..., 1:])

    def act(state, obs, noise):
        return select_action(state, obs, noise, current_epsilon(config, state)), ()

    def greedy(state, obs, key):
        return select_action(state, obs, sample_one(sample_noise, key), 0.0)

    return Acting(sample_noise, act, greedy)


def td_error_metric(td_error: Array, is_due: Array | bool = True) -> Mean:
    """Returns the absolute TD error of one update of the table, with weight 0 if it is not due."""
    weight = jnp.asarray(is_due, jnp.float32)
    return Mean(weight * jnp.abs(td_error), weight)


def update_entry(
    table: Array, index: Any, target: Array, learning_rate: Any, is_due: Array | bool = True
) -> tuple[Array, Mean]:
    """Moves one table entry toward its target, if the update is due.

    Returns:
      The table, and the metric of the TD error.
    """
    td_error = jnp.where(is_due, target - table[index], 0.0)
    return table.at[index].add(learning_rate * td_error), td_error_metric(td_error, is_due)


class LearnStep(Protocol):
    def __call__(
        self, state: TableState, step: Transition, noise: Any, /
    ) -> tuple[TableState, Mean]:
        """Learns from one step of one environment.

        Args:
          state: the state of the agent; `state.episode` is that of this environment.
          step: a transition of scalars.
          noise: uniform random numbers `[*noise_shape]`.

        Returns:
          The new state and the metric of the TD error.
        """
        ...


def tabular_agent(
    spec: EnvSpec, init_state: Callable[[], TableState], learn: LearnStep, acting: Acting, *,
    noise_shape: tuple[int, ...] = (), average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes the agent of a tabular algorithm.

    Args:
      spec: description of the environment.
      init_state: returns the initial state, with the `episode` of a single environment.
      learn: `(state, step, noise) -> (state, metric)`, learns from one step of one environment.
      acting: the behavior policy, and the policy for evaluation.
      noise_shape: shape of the random numbers that `learn` needs per step; () if none.
      average: mean over workers. Each worker changes its table by the mean change of all.

    Raises:
      ValueError: the states are not numbered, or the actions are continuous.
    """
    shapes = [x.shape for x in jax.tree.leaves(split_mask(spec, obs_structs(spec))[0])]
    is_discrete = bool(spec.num_actions) and not isinstance(spec.num_actions, tuple)
    if not spec.num_states or not is_discrete or shapes != [()]:
        raise ValueError(
            "a tabular agent needs numbered states and discrete actions, but "
            f"{spec.env_id} has {spec.num_states} numbered states, {spec.num_actions} discrete "
            f"actions and observations of shape {spec.obs_shape}. Use a tabular environment such "
            "as rljax/Maze, or a network agent such as dqn."
        )

    def init(key):
        del key
        state = init_state()

        def repeat(x):
            return jnp.broadcast_to(x, (spec.num_envs, *x.shape))

        return state._replace(episode=jax.tree.map(repeat, state.episode))

    def learn_from_environment(state, inputs):
        episode, step, noise = inputs
        params = with_illegal_actions(spec, state.params, step)
        step = step._replace(
            obs=state_index(spec, step.obs), next_obs=state_index(spec, step.next_obs)
        )
        state, metric = learn(state._replace(episode=episode, params=params), step, noise)
        return state._replace(episode=()), (state.episode, metric)

    def learn_from_time_step(state, inputs):
        episodes, state = state.episode, state._replace(episode=())
        state, (episodes, metrics) = _scan(learn_from_environment, state, (episodes, *inputs))
        return state._replace(episode=episodes), metrics

    def update(state, trajectory, key):
        shape = (*trajectory.reward.shape, *noise_shape)
        noise = random.uniform(key, shape) if noise_shape else ()
        steps = (trajectory._replace(extras=()), noise)
        new_state, metrics = _scan(learn_from_time_step, state, steps)
        params = _add_mean_change(state.params, new_state.params, average)
        num_updates = Shared(state.num_updates.value + 1)
        metrics = {"losses/td_error": average(jax.tree.map(jnp.sum, metrics))}
        return new_state._replace(params=params, num_updates=num_updates), metrics

    return Agent(init, acting.act, acting.greedy, update, acting.sample_noise)


def with_illegal_actions(spec: EnvSpec, params: PyTree, step: Transition) -> PyTree:
    """Sets the values of illegal actions in the two states of a step to -inf.

    They are then left out of every maximum and expectation. Without an action mask nothing changes.

    Args:
      spec: description of the environment.
      params: tables of action values `[..., S, A]`; tables of state values are not changed.
      step: a transition of one environment.
    """
    if not spec.action_mask:
        return params

    def mark(table):
        if table.ndim < 2:  # state values
            return table
        for obs, has_actions in ((step.obs, True), (step.next_obs, ~step.terminated)):
            is_illegal = ~field(obs, spec.action_mask) & has_actions
            index = (..., state_index(spec, obs), slice(None))
            table = table.at[index].set(jnp.where(is_illegal, -jnp.inf, table[index]))
        return table

    return jax.tree.map(mark, params)


def _scan(function: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """`lax.scan`, without a loop where there is a single step."""
    return jax.lax.scan(function, carry, xs, unroll=len(jax.tree.leaves(xs)[-1]) == 1)


def _add_mean_change(old: PyTree, new: PyTree, average: Callable[[PyTree], PyTree]) -> PyTree:
    """Returns the old table plus the mean over workers of its change."""
    if average is identity:  # saves a pass over the whole table
        return new

    def add(old, new):
        legal = new > -jnp.inf
        change = average(jnp.where(legal, new - old, 0.0))
        return jnp.where(average(legal.astype(jnp.float32)) < 1.0, -jnp.inf, old + change)

    return jax.tree.map(add, old, new)
