"""Robot arms of two links whose tip must reach a goal and stay there, in a plane of 400 x 400.

Rules of Zhou (2017), https://github.com/MorvanZhou: `Arm-*` is Robot_arm in
Reinforcement-learning-with-tensorflow, `TwoJointArm` is train-robot-arm-from-scratch. Deviations:
every step with the tip off the goal resets the count of steps, also in the version "final"; the
flag that `Arm-*` observes is that of the current step; `Arm-hard` starts at random angles.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import suggestion
from rljax.envs.resets import Persistent
from rljax.envs.wrappers import time_limit
from rljax.types import Array, Env, EnvSpec, Key, Step

SIZE = 400.0  # width and height of the plane
BASE = 200.0  # both coordinates of the base
LINK = 100.0  # length of each link
REACH = 2 * LINK  # the tip reaches the points of the disc with this radius around the base
TIME_STEP = 0.1
DISC_RADIUS = 15.0  # of the goals of `Arm-*`
SQUARE_HALF_SIDE = 20.0  # of the goals of `TwoJointArm`
VERSIONS = ("part4", "part5", "final")


class ArmState(NamedTuple):
    """The state of an arm.

    Attributes:
      angles: angles of the links in radians, `[2]`; `Persistent` where the next episode continues
        with them.
      goal: position of the goal, `[2]`.
      steps_at_goal: consecutive steps with the tip at the goal, int32.
    """

    angles: Any
    goal: Array
    steps_at_goal: Array


class ArmTask(NamedTuple):
    """The rules that differ between the arms.

    Attributes:
      num_features: length of the observation.
      features: `(angles, joint, tip, goal, flag) -> obs`; flag is 1 with the tip at the goal.
      is_inside: whether the tip is at the goal, from `tip - goal [2]` and its length.
      draw_goal: `key -> goal [2]`.
      distance_cost: cost per unit of distance from the tip to the goal.
      bonus: additional reward of the last step of the task.
      hold_steps: the task ends after more consecutive steps at the goal than this.
      relative: the second angle is relative to the first link.
      keeps_angles: an episode starts with the angles at the end of the one before.
    """

    num_features: int
    features: Callable[..., Array]
    is_inside: Callable[[Array, Array], Array]
    draw_goal: Callable[[Key], Array]
    distance_cost: float
    bonus: float = 0.0
    hold_steps: int = 50
    relative: bool = False
    keeps_angles: bool = False


def angles_of(state: ArmState) -> Array:
    """Returns the angles `[2]` of an arm, also of one that keeps them between episodes."""
    return state.angles.value if isinstance(state.angles, Persistent) else state.angles


@partial(jax.jit, static_argnames="relative", inline=True)  # for `render`, which is not compiled
def positions(angles: Array, relative: bool) -> tuple[Array, Array]:
    """Returns the positions `[2]` of the joint and of the tip.

    Args:
      angles: angles of the two links in radians, `[2]`.
      relative: the second angle is relative to the first link, otherwise to the x-axis.

    Example:
      >>> joint, tip = positions(jnp.array([0.0, jnp.pi / 2]), relative=True)
      >>> joint.round().tolist(), tip.round().tolist()
      ([300.0, 200.0], [300.0, 300.0])
    """
    first, second = angles[0], angles[1] + (angles[0] if relative else 0.0)
    joint = BASE + LINK * jnp.stack([jnp.cos(first), jnp.sin(first)])
    return joint, joint + LINK * jnp.stack([jnp.cos(second), jnp.sin(second)])


def arm_easy(*, max_episode_steps: int = 200) -> Env:
    """An arm with absolute angles, a goal at (250, 303) and random initial angles.

    Actions are the angular velocities of the links, `[2]` in [-1, 1]; a step takes 0.1 units of
    time. Observations `[7]` are a flag, 1 with the tip at the goal, and the positions of joint,
    tip and base relative to the goal, in units of 200. The reward is minus the distance from tip
    to goal, in units of 200, plus 1 with the tip within 15 of the goal. After more than 50
    consecutive such steps the task ends with an additional reward of 10.
    """
    return _arm(_absolute_arm(lambda key: jnp.array([250.0, 303.0])), "Arm-easy", max_episode_steps)


def arm_hard(*, max_episode_steps: int = 200) -> Env:
    """`arm_easy` with a random goal in each episode; the arm is not moved between episodes.

    Goals are uniform in [0, 400]^2, then clipped to [100, 300]^2, so the tip reaches all of them.
    """

    def draw_goal(key):
        return jnp.clip(_uniform_goal(key), 100.0, 300.0)

    task = _absolute_arm(draw_goal)._replace(keeps_angles=True)
    return _arm(task, "Arm-hard", max_episode_steps)


def two_joint_arm(*, version: str = "part5", max_episode_steps: int = 200) -> Env:
    """An arm whose second angle is relative to the first link, with random initial angles.

    Actions are the angular velocities of the links, `[2]` in [-1, 1]; a step takes 0.1 units of
    time. The tip is at the goal inside a square with sides of 40. In the versions "part5" and
    "final", observations `[9]` are the positions of joint and tip in units of 200, those of the
    goal relative to joint and tip in units of 400, and a flag, 1 with the tip at the goal. The
    reward is minus the distance from tip to goal, in units of 400, plus 1 with the tip at the
    goal. The task ends after more than 50 consecutive steps at the goal.

    The tip reaches the disc of radius 200 around the base (200, 200). A goal of "final" has its
    center outside with probability 1 - pi / 4 = 0.215, and no point of its square in the disc
    with probability 0.083. Such a task cannot be completed.

    Args:
      version: "part4": the goal is at (100, 100), observations are the two angles, and the
        reward is 1 for reaching the goal, which ends the task; "part5": the same goal, which the
        tip must hold; "final": the goal is uniform in [0, 400]^2 in each episode.
      max_episode_steps: time limit.
    """
    if version not in VERSIONS:
        raise ValueError(
            f"`version` is {version!r}, but it must be {', '.join(VERSIONS[:-1])} or "
            f"{VERSIONS[-1]}: {suggestion(version, VERSIONS)}"
        )
    task = ArmTask(
        num_features=9, features=_two_joint_features, is_inside=_is_in_square,
        draw_goal=lambda key: jnp.array([100.0, 100.0]), distance_cost=1 / 400, relative=True,
    )  # fmt: skip
    if version == "part4":
        task = task._replace(
            num_features=2, features=lambda angles, *_: angles, distance_cost=0.0, hold_steps=0
        )
    if version == "final":
        task = task._replace(draw_goal=_uniform_goal)
    return _arm(task, "TwoJointArm", max_episode_steps)


def _arm(task: ArmTask, name: str, max_episode_steps: int) -> Env:
    """Makes the environment of a task; its `step` does not reset."""
    spec = EnvSpec(obs_shape=(task.num_features,), action_shape=(2,), env_id=f"rljax/{name}")

    def observe(state):
        joint, tip = positions(angles_of(state), task.relative)
        flag = (state.steps_at_goal > 0).astype(jnp.float32)
        return task.features(angles_of(state), joint, tip, state.goal, flag)

    def sample_noise(key, num_steps):
        del key  # steps are deterministic
        return jnp.zeros((num_steps, 0))

    def reset(key):
        angle_key, goal_key = jax.random.split(key)
        angles = jax.random.uniform(angle_key, (2,), maxval=2 * jnp.pi)
        angles = Persistent(angles) if task.keeps_angles else angles
        state = ArmState(angles, task.draw_goal(goal_key), jnp.int32(0))
        return state, observe(state)

    def step(state, action, noise):
        del noise
        velocity = jnp.clip(action, -1.0, 1.0)
        angles = (angles_of(state) + TIME_STEP * velocity) % (2 * jnp.pi)
        offset = positions(angles, task.relative)[1] - state.goal
        distance = jnp.sqrt(offset[0] ** 2 + offset[1] ** 2)
        is_inside = task.is_inside(offset, distance)
        steps_at_goal = jnp.where(is_inside, state.steps_at_goal + 1, 0)
        terminated = steps_at_goal > task.hold_steps
        reward = is_inside + task.bonus * terminated - task.distance_cost * distance
        angles = Persistent(angles) if task.keeps_angles else angles
        state = ArmState(angles, state.goal, steps_at_goal)
        obs = observe(state)
        # `rljax watch` shows the state reached, which `auto_reset` replaces at the end
        info: dict[str, Any] = {"next_state": state}
        return state, Step(obs, reward, terminated, jnp.zeros((), bool), obs, info)

    def render(state):
        tip = np.asarray(positions(angles_of(state), task.relative)[1])
        goal = np.asarray(state.goal)
        distance = np.linalg.norm(tip - goal)
        return (
            f"tip ({tip[0]:.0f}, {tip[1]:.0f}), goal ({goal[0]:.0f}, {goal[1]:.0f}), "
            f"distance {distance:.1f}, {int(state.steps_at_goal)} steps at the goal"
        )

    observe_persistent = observe if task.keeps_angles else None
    env = Env(spec, reset, step, sample_noise, render, observe_persistent)
    return time_limit(env, max_episode_steps)


def _uniform_goal(key: Key) -> Array:
    return jax.random.uniform(key, (2,), maxval=SIZE)


def _absolute_arm(draw_goal: Callable[[Key], Array]) -> ArmTask:
    def features(angles, joint, tip, goal, flag):
        return jnp.concatenate(
            [flag[None], *(x / 200 for x in (joint - goal, tip - goal, BASE - goal))]
        )

    def is_inside(offset, distance):
        return distance < DISC_RADIUS

    return ArmTask(7, features, is_inside, draw_goal, distance_cost=1 / 200, bonus=10.0)


def _two_joint_features(angles, joint, tip, goal, flag):
    features = [joint / 200, tip / 200, (goal - joint) / 400, (goal - tip) / 400, flag[None]]
    return jnp.concatenate(features)


def _is_in_square(offset: Array, distance: Array) -> Array:
    return (jnp.abs(offset[0]) < SQUARE_HALF_SIDE) & (jnp.abs(offset[1]) < SQUARE_HALF_SIDE)
