"""Value iteration and policy iteration as agents (Sutton and Barto 2018, sections 4.3 and 4.4).

They plan with the exact model of the environment and learn nothing from its transitions. An update
is one sweep of value iteration, or one evaluation and improvement of a policy, so that a learning
curve shows the return of the policy by sweeps. `ops.planning` solves a model in one call.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.config import RunConfig, config, option
from rljax.ops import planning, random
from rljax.types import Agent, Array, EnvSpec, PyTree, identity


@config
class PlanningConfig(RunConfig):
    """Options of value iteration and policy iteration."""

    total_timesteps: int = option(3_200, "environment steps of the whole run", low=1)
    num_envs: int = option(1, "number of parallel environments", low=1)
    num_steps: int = option(32, "environment steps between two sweeps", low=1)
    gamma: float = option(0.9, "discount factor gamma", low=0.0, high=1.0)
    epsilon: float = option(0.0, "epsilon of the optimal epsilon-soft policy", low=0.0, high=1.0)


class PlanningState(NamedTuple):
    """The state of a planning agent.

    Attributes:
      params: action values `[S, A]`.
      policy: the policy that policy iteration improves, without exploration, `[S, A]`.
    """

    params: Array
    policy: Array


def value_iteration(
    config: PlanningConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes an agent whose update is one sweep of value iteration (eq. 4.10).

    Args:
      config: options; floats may be tracers.
      spec: description of an environment with a model.
      average: not used; all workers compute the same values.

    Raises:
      ValueError: the environment has no model.

    Example:
      >>> import rljax
      >>> env = rljax.build("rljax/Maze", num_envs=1)
      >>> agent = value_iteration(PlanningConfig(gamma=0.9), env.spec)
    """
    del average
    model = _model(spec)

    def update(state, trajectory, key):
        del trajectory, key
        value = planning.epsilon_greedy_value(state.params, config.epsilon)
        q = planning.q_values(model, value, config.gamma)
        return PlanningState(q, planning.greedy(q)), _metrics(q, state.params)

    return _agent(config, spec, update)


def policy_iteration(
    config: PlanningConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes an agent whose update evaluates its policy exactly and improves it (section 4.3).

    Args:
      config: options; floats may be tracers.
      spec: description of an environment with a model.
      average: not used; all workers compute the same values.

    Raises:
      ValueError: the environment has no model.
    """
    del average
    model = _model(spec)

    def update(state, trajectory, key):
        del trajectory, key
        policy = planning.epsilon_soft(state.policy, config.epsilon)
        value = planning.policy_evaluation(model, policy, config.gamma)
        q = planning.q_values(model, value, config.gamma)
        policy = planning.policy_improvement(state.policy, q)
        return PlanningState(q, policy), _metrics(q, state.params)

    return _agent(config, spec, update)


def _model(spec: EnvSpec) -> planning.Model:
    if spec.model is None:
        raise ValueError(
            f"planning needs a model, but {spec.env_id} has none: use an environment with a model, "
            "such as rljax/Maze, or set `model` in the `EnvSpec` of your own environment."
        )
    return jax.tree.map(jnp.asarray, spec.model)


def _metrics(q: Array, old_q: Array) -> dict[str, Array]:
    return {"losses/bellman_residual": jnp.abs(q - old_q).max()}


def _agent(config: PlanningConfig, spec: EnvSpec, update: Callable) -> Agent:
    """Makes an agent that acts on its action values, epsilon-greedily during training."""
    shape = (spec.num_states, spec.num_actions)

    def init(key):
        del key
        return PlanningState(jnp.zeros(shape), jnp.full(shape, 1 / spec.num_actions))

    def sample_noise(key, num_steps):
        return random.gumbel(key, (num_steps, spec.num_envs, spec.num_actions))

    def act(state, obs, noise):
        policy = planning.epsilon_soft(planning.greedy(state.params), config.epsilon)
        return (jnp.log(policy[obs]) + noise).argmax(axis=-1), ()

    def greedy(state, obs, key):
        del key
        return state.params[obs].argmax(axis=-1)

    return Agent(init, act, greedy, update, sample_noise)
