"""What the tabular algorithms share: their options, how they act, and the loop over a trajectory.

An algorithm is a function of one step of one environment, `learn(state, step, noise) -> (state,
error)`, where `state.episode` is what that environment remembers of its episode. So a trajectory is
learned from step by step, and within a time step one environment after the other, each from what
the others left: T updates of one step are one update of T steps, and no step size grows with B.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.agents.acting import Acting
from rljax.config import RunConfig, config, option
from rljax.ops import td
from rljax.types import Agent, Array, EnvSpec, Mean, PyTree, Shared, identity, sample_one


@config
class TableConfig(RunConfig):
    """Options of every tabular algorithm."""

    total_timesteps: int = option(20_000, "environment steps of the whole run", low=1)
    num_envs: int = option(1, "environments side by side, which share the table (B)", low=1)
    num_steps: int = option(1, "steps of each between updates (T); 1 is the textbook's", low=1)
    learning_rate: float = option(0.1, "step size", above=0)
    initial_value: float = option(0.0, "what every entry of the table is at first")


@config
class ControlConfig(TableConfig):
    """Options of those that act by what they learn."""

    eps_start: float = option(0.1, "chance of a random action at first", low=0, high=1)
    eps_end: float = option(0.1, "chance of a random action at last", low=0, high=1)
    exploration_fraction: float = option(
        0.5, "part of the run in which the chance goes from one to the other", above=0, high=1
    )


class QTable(NamedTuple):
    q: Array  # [S, A]


class VTable(NamedTuple):
    v: Array  # [S]


class TableState(NamedTuple):
    params: PyTree
    num_updates: Shared
    episode: PyTree = ()  # [B, ...] what is remembered of the episode under way
    model: PyTree = ()  # what was learned of the world itself


def exploration(config: ControlConfig, state: TableState) -> Array:
    """The chance of a random action, now."""
    duration = config.exploration_fraction * config.num_updates
    count = state.num_updates.value
    return td.epsilon_schedule(count, config.eps_start, config.eps_end, duration)


def soft_policy(q: Array, epsilon: Array | float) -> Array:
    """The epsilon-greedy policy, ties sharing alike: `[..., A] -> [..., A]`."""
    best = (q >= q.max(axis=-1, keepdims=True)).astype(q.dtype)
    return (1 - epsilon) * best / best.sum(axis=-1, keepdims=True) + epsilon / q.shape[-1]


def soft_value(q: Array, epsilon: Array | float) -> Array:
    """What the epsilon-greedy policy is worth: `(1 - epsilon) max q + epsilon mean q`."""
    return (1 - epsilon) * q.max(axis=-1) + epsilon * q.mean(axis=-1)


def exploring(config: ControlConfig, spec: EnvSpec) -> Acting:
    """Epsilon-greedy, ties broken at random, in `greedy` as well."""

    def sample_noise(key, num_steps):
        return jax.random.uniform(key, (num_steps, spec.num_envs, spec.num_actions + 1))

    def choose(state, obs, noise, epsilon):
        return td.epsilon_greedy(state.params.q[obs], epsilon, noise[..., 0], noise[..., 1:])

    def act(state, obs, noise):
        return choose(state, obs, noise, exploration(config, state)), ()

    def greedy(state, obs, key):
        return choose(state, obs, sample_one(sample_noise, key), 0.0)

    return Acting(sample_noise, act, greedy)


def q_table(config: TableConfig, spec: EnvSpec) -> QTable:
    """Action values before anything was seen."""
    return QTable(jnp.full((spec.num_states, spec.num_actions), config.initial_value, jnp.float32))


def error_of(td_error: Array, due: Array | bool = True) -> Mean:
    """The metric of one correction, where one was made."""
    due = jnp.asarray(due, jnp.float32)
    return Mean(due * jnp.abs(td_error), due)


def tabular(
    spec: EnvSpec, begin: Callable[[], TableState],
    learn: Callable[[TableState, Any, Any], tuple[TableState, Mean]], acting: Acting, *,
    noise: tuple[int, ...] = (), average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes the agent of a tabular algorithm.

    Args:
      begin: the state, with `episode` of one environment.
      learn: of one step of one environment; `step` is a `Transition` of scalars.
      acting: how it behaves.
      noise: the shape of the uniform numbers that `learn` takes for a step; (): it takes none.
      average: over workers: each moves its table by the mean of what all of them learned.

    Raises:
      ValueError: the environment has no numbered states, or its actions are continuous.
    """
    if not spec.num_states or not spec.num_actions or spec.obs_shape:
        raise ValueError(
            f"{spec.env_id} has {spec.num_states} numbered states, {spec.num_actions} discrete "
            f"actions and observations of shape {spec.obs_shape}, but a table needs a row a state "
            "and a column an action: take a world such as rljax/Maze, or an agent with a network."
        )

    def init(key):
        del key
        state = begin()

        def of_each(x):
            return jnp.broadcast_to(x, (spec.num_envs, *x.shape))

        return state._replace(episode=jax.tree.map(of_each, state.episode))

    def one_environment(state, x):
        episode, step, numbers = x
        state, error = learn(state._replace(episode=episode), step, numbers)
        return state._replace(episode=()), (state.episode, error)

    def one_time(state, x):
        each = partial(_scan, one_environment, state._replace(episode=()))
        state, (episode, error) = each((state.episode, *x))
        return state._replace(episode=episode), error

    def update(state, trajectory, key):
        shape = (*trajectory.reward.shape, *noise)
        numbers = jax.random.uniform(key, shape) if noise else ()
        new, errors = _scan(one_time, state, (trajectory._replace(extras=()), numbers))
        params = _together(state.params, new.params, average)
        count = Shared(state.num_updates.value + 1)
        metrics = {"losses/td_error": average(jax.tree.map(jnp.sum, errors))}
        return new._replace(params=params, num_updates=count), metrics

    return Agent(init, acting.act, acting.greedy, update, acting.sample_noise)


def _scan(function: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """`lax.scan`, in which a single step is no loop."""
    return jax.lax.scan(function, carry, xs, unroll=len(jax.tree.leaves(xs)[-1]) == 1)


def _together(old: PyTree, new: PyTree, average: Callable[[PyTree], PyTree]) -> PyTree:
    """What the workers learned since they last agreed, in each of them."""
    if average is identity:  # no work over the whole table for nothing
        return new
    return jax.tree.map(lambda old, new: old + average(new - old), old, new)
