"""The record of what there is to draw at one step, and of how to draw it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Scene(NamedTuple):
    """What there is to draw at one step of an episode.

    Attributes:
      state: state of the innermost environment, without that of its wrappers.
      obs: observation, `[*obs_shape]` or a tree of arrays.
      text: output of `Env.render`; None if the environment has none.
      action: the action that led to this state; None at the first step, or if it is not known.
      reward: the reward of that action; None as for `action`.
    """

    state: Any
    obs: Any
    text: str | None = None
    action: Any = None
    reward: Any = None


class Renderer(NamedTuple):
    """How to draw one environment.

    Attributes:
      draw: the scenes of an episode -> one frame for each, uint8 `[H, W, 3]`.
      action_names: names of its discrete actions, if they have any.
      fps: a suitable number of frames per second.
    """

    draw: Callable[[Sequence[Scene]], list[np.ndarray]]
    action_names: tuple[str, ...] = ()
    fps: int = 30


def each(draw: Callable[[Scene], np.ndarray]) -> Callable[[Sequence[Scene]], list[np.ndarray]]:
    """Returns the function of a sequence of scenes that draws each of them."""
    return lambda scenes: [draw(scene) for scene in scenes]
