"""The rules by which tasks terminate, as functions of observations, for learned models."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from rljax.types import Array


def never(obs: Array, action: Array, next_obs: Array) -> Array:
    """The rule of a task without terminal states: False, `[...]`."""
    del obs, action
    return jnp.zeros(next_obs.shape[:-1], bool)


def _cart_pole(params):
    def rule(obs, action, next_obs):
        del obs, action
        position, angle = jnp.abs(next_obs[..., 0]), jnp.abs(next_obs[..., 2])
        return (position > params.x_threshold) | (angle > params.theta_threshold_radians)

    return rule


def _mountain_car(params):
    def rule(obs, action, next_obs):
        del obs, action
        position, velocity = next_obs[..., 0], next_obs[..., 1]
        return (position >= params.goal_position) & (velocity >= params.goal_velocity)

    return rule


def _acrobot(params):
    del params

    def rule(obs, action, next_obs):
        del obs, action
        cos_1, sin_1, cos_2, sin_2 = jnp.unstack(next_obs[..., :4], axis=-1)
        return -cos_1 - (cos_1 * cos_2 - sin_1 * sin_2) > 1.0

    return rule


RULES = {
    "CartPole": _cart_pole, "MountainCar": _mountain_car,
    "ContinuousMountainCar": _mountain_car, "Acrobot": _acrobot, "Pendulum": lambda params: never,
}  # fmt: skip


def rule_of(env: Any, params: Any) -> Callable[..., Array] | None:
    """Returns the rule of an environment of gymnax, or None if it is unknown here.

    The rule is `(obs[..., O], action, next_obs[..., O]) -> terminated [...]`.
    """
    kind = type(env)
    make = RULES.get(kind.__name__) if kind.__module__.startswith("gymnax.") else None
    return make and make(params)
