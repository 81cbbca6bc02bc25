"""The rules by which tasks terminate, as functions of observations, for learned models."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from rljax.types import Array


def never(obs: Array, action: Array, next_obs: Array) -> Array:
    """The rule of a task without terminal states: False, `[...]`."""
    del obs, action
    return jnp.zeros(next_obs.shape[:-1], bool)


@dataclasses.dataclass(frozen=True)
class CartPole:
    """The cart leaves the track, or the pole falls; equal thresholds are equal rules."""

    position: float
    angle: float

    def __call__(self, obs: Array, action: Array, next_obs: Array) -> Array:
        del obs, action
        position, angle = jnp.abs(next_obs[..., 0]), jnp.abs(next_obs[..., 2])
        return (position > self.position) | (angle > self.angle)


@dataclasses.dataclass(frozen=True)
class MountainCar:
    """The car is at the goal or right of it, and fast enough."""

    position: float
    velocity: float

    def __call__(self, obs: Array, action: Array, next_obs: Array) -> Array:
        del obs, action
        return (next_obs[..., 0] >= self.position) & (next_obs[..., 1] >= self.velocity)


def acrobot(obs: Array, action: Array, next_obs: Array) -> Array:
    """The free end is more than one link above the joint at which Acrobot hangs."""
    del obs, action
    cos_1, sin_1, cos_2, sin_2 = jnp.unstack(next_obs[..., :4], axis=-1)
    return -cos_1 - (cos_1 * cos_2 - sin_1 * sin_2) > 1.0


def _cart_pole(params):
    return CartPole(params.x_threshold, params.theta_threshold_radians)


def _mountain_car(params):
    return MountainCar(params.goal_position, params.goal_velocity)


RULES = {
    "CartPole": _cart_pole, "MountainCar": _mountain_car,
    "ContinuousMountainCar": _mountain_car, "Acrobot": lambda params: acrobot,
    "Pendulum": lambda params: never,
}  # fmt: skip


def rule_of(env: Any, params: Any) -> Callable[..., Array] | None:
    """Returns the rule of an environment of gymnax, or None if it is unknown here.

    The rule is `(obs[..., O], action, next_obs[..., O]) -> terminated [...]`.
    """
    kind = type(env)
    make = RULES.get(kind.__name__) if kind.__module__.startswith("gymnax.") else None
    return make and make(params)
