"""Value iteration and policy iteration as agents (Sutton and Barto 2018, sections 4.3, 4.4).

They know the model of their world and learn nothing from what they live through: an update is one
sweep over all states, or one policy evaluated and improved, so that a curve over environment steps
shows how the return grows with the sweeps. `ops.planning` solves a model in one call.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.config import RunConfig, config, option
from rljax.ops import planning
from rljax.types import Agent, Array, EnvSpec, PyTree, identity


@config
class PlanningConfig(RunConfig):
    total_timesteps: int = option(3_200, "environment steps of the whole run", low=1)
    num_envs: int = option(1, "environments side by side (B)", low=1)
    num_steps: int = option(32, "steps of each between updates (T)", low=1)
    gamma: float = option(0.9, "discount", low=0.0, high=1.0)
    epsilon: float = option(0.0, "chance of a random action; planned for", low=0.0, high=1.0)


class PlanningState(NamedTuple):
    params: Array  # q [S, A]
    policy: Array  # [S, A], of policy iteration, without its random actions


def value_iteration(
    config: PlanningConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes an agent that does one sweep of value iteration (eq. 4.10) an update.

    Raises:
      ValueError: the environment does not know its model.
    """
    del average  # all workers plan the same
    model = _model(spec)

    def update(state, trajectory, key):
        del trajectory, key
        value = planning.best_soft(state.params, config.epsilon)
        q = planning.q_values(model, value, config.gamma)
        return PlanningState(q, planning.greedy(q)), _metrics(q, state.params)

    return _agent(config, spec, update)


def policy_iteration(
    config: PlanningConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes an agent that evaluates its policy exactly and improves it, once an update.

    Raises:
      ValueError: the environment does not know its model.
    """
    del average
    model = _model(spec)

    def update(state, trajectory, key):
        del trajectory, key
        policy = planning.soft(state.policy, config.epsilon)
        value = planning.policy_evaluation(model, policy, config.gamma)
        q = planning.q_values(model, value, config.gamma)
        return PlanningState(q, planning.improve(state.policy, q)), _metrics(q, state.params)

    return _agent(config, spec, update)


def _model(spec: EnvSpec) -> planning.Model:
    if spec.model is None:
        raise ValueError(
            f"{spec.env_id} does not know its model, and so it cannot be planned in: take a world "
            "such as rljax/Maze, or put `model=` into the spec of your own."
        )
    return jax.tree.map(jnp.asarray, spec.model)


def _metrics(q: Array, old: Array) -> dict[str, Array]:
    return {"losses/bellman_residual": jnp.abs(q - old).max()}


def _agent(config: PlanningConfig, spec: EnvSpec, update: Callable) -> Agent:
    """Acts by the table; in an update nothing of the trajectory is read."""
    shape = (spec.num_states, spec.num_actions)

    def init(key):
        del key
        return PlanningState(jnp.zeros(shape), jnp.full(shape, 1 / spec.num_actions))

    def sample_noise(key, num_steps):
        return jax.random.gumbel(key, (num_steps, spec.num_envs, spec.num_actions))

    def act(state, obs, noise):
        policy = planning.soft(planning.greedy(state.params), config.epsilon)
        return (jnp.log(policy[obs]) + noise).argmax(axis=-1), ()

    def greedy(state, obs, key):
        del key
        return state.params[obs].argmax(axis=-1)

    return Agent(init, act, greedy, update, sample_noise)
