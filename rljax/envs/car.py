"""A car with distance sensors that drives around a square obstacle, `rljax/Car2D`.

Rules of Zhou (2017), 2D_car in https://github.com/MorvanZhou/Reinforcement-learning-with-tensorflow.
Every episode starts in the same state, and steps are deterministic.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.envs.wrappers import time_limit
from rljax.types import Array, Env, EnvSpec, Step

SIZE = 500.0  # width and height of the window, whose border is a wall
OBSTACLE = (120.0, 380.0)  # both coordinates of two opposite corners
START, START_HEADING = (450.0, 300.0), -np.pi / 2
STEP_LENGTH = 5.0  # speed 50, time step 0.1
MAX_TURN = np.pi / 30  # per step, 6 degrees
CAR_LENGTH, CAR_WIDTH = 40.0, 20.0
SENSOR_ANGLES = tuple(np.linspace(-np.pi / 2, np.pi / 2, 5).tolist())  # relative to the heading
SENSOR_RANGE = 150.0
COLLISION_DISTANCE = 20.0  # half of the length of the car
SMALLEST_SLOPE = 1e-6  # of a ray relative to a wall, so that no division is by zero


class CarState(NamedTuple):
    """The state of the car.

    Attributes:
      position: center of the car, `[2]`.
      heading: direction of travel in radians, counterclockwise from the x-axis.
    """

    position: Array
    heading: Array


def car_2d(*, max_episode_steps: int = 600) -> Env:
    """A car of constant speed in a window of 500 x 500 around the obstacle [120, 380]^2.

    The action `[1]` in [-1, 1] turns the car by up to 6 degrees, counterclockwise if positive;
    then it moves by 5. Observations `[5]` are the distances from the center of the car to the
    nearest wall at -90, -45, 0, 45 and 90 degrees from its heading, at most 150, in units of 150.
    If a distance is below 20, the car has collided: the reward is -1 and the task ends. All other
    rewards are 0.
    """
    spec = EnvSpec(obs_shape=(len(SENSOR_ANGLES),), action_shape=(1,), env_id="rljax/Car2D")

    def sample_noise(key, num_steps):
        del key  # steps are deterministic
        return jnp.zeros((num_steps, 0))

    def reset(key):
        del key
        state = CarState(jnp.array(START), jnp.float32(START_HEADING))
        return state, sensor_distances(state) / SENSOR_RANGE

    def step(state, action, noise):
        del noise
        heading = state.heading + MAX_TURN * jnp.clip(action[0], -1.0, 1.0)
        direction = jnp.stack([jnp.cos(heading), jnp.sin(heading)])
        state = CarState(state.position + STEP_LENGTH * direction, heading)
        distance = sensor_distances(state)
        collided = (distance < COLLISION_DISTANCE).any()
        obs, reward = distance / SENSOR_RANGE, -collided.astype(jnp.float32)
        # `rljax watch` shows the state reached, which `auto_reset` replaces at the end
        info: dict[str, Any] = {"next_state": state}
        return state, Step(obs, reward, collided, jnp.zeros((), bool), obs, info)

    def render(state):
        x, y = np.asarray(state.position)
        degrees = round(math.degrees(state.heading)) % 360
        nearest = np.asarray(sensor_distances(state)).min()
        return f"position ({x:.0f}, {y:.0f}), heading {degrees} degrees, nearest wall {nearest:.0f}"

    return time_limit(Env(spec, reset, step, sample_noise, render), max_episode_steps)


@partial(jax.jit, inline=True)  # for `render`, which is not compiled
def sensor_distances(state: CarState) -> Array:
    """Returns the distance to the nearest wall along each sensor ray, at most 150, `[5]`.

    Example:
      >>> state = CarState(jnp.array([450.0, 300.0]), jnp.float32(-jnp.pi / 2))
      >>> sensor_distances(state).round().tolist()
      [70.0, 99.0, 150.0, 71.0, 50.0]
    """
    cos, sin = jnp.cos(state.heading), jnp.sin(state.heading)
    forward, left = np.cos(SENSOR_ANGLES), np.sin(SENSOR_ANGLES)
    inverse = _inverse(cos * forward - sin * left), _inverse(sin * forward + cos * left)
    to_border = _distance_to_square(state.position, inverse, 0.0, SIZE)
    to_obstacle = _distance_to_square(state.position, inverse, *OBSTACLE)
    return jnp.minimum(jnp.minimum(to_border, to_obstacle), SENSOR_RANGE)


def _inverse(direction: Array) -> Array:
    """Returns 1 / direction, large but finite for a ray parallel to a wall."""
    size = jnp.maximum(jnp.abs(direction), SMALLEST_SLOPE)
    return jnp.where(direction < 0, -1 / size, 1 / size)


def _distance_to_square(
    position: Array, inverse: tuple[Array, Array], low: float, high: float
) -> Array:
    """Returns the distance along rays `[N]` to the sides of the square [low, high]^2.

    Args:
      position: start of the rays, `[2]`, inside or outside the square.
      inverse: reciprocals of the x- and y-components of the directions, `[N]` each.
      low, high: both coordinates of two opposite corners.

    Returns:
      Distances `[N]`; `SENSOR_RANGE` for rays that do not meet the square.
    """
    low_x, high_x = ((bound - position[0]) * inverse[0] for bound in (low, high))
    low_y, high_y = ((bound - position[1]) * inverse[1] for bound in (low, high))
    entry = jnp.maximum(jnp.minimum(low_x, high_x), jnp.minimum(low_y, high_y))
    leave = jnp.minimum(jnp.maximum(low_x, high_x), jnp.maximum(low_y, high_y))
    distance = jnp.where(entry >= 0, entry, leave)
    return jnp.where((entry <= leave) & (leave >= 0), distance, SENSOR_RANGE)
