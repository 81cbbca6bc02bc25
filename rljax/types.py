"""The nouns of rljax. Every other module speaks only in these types.

Shapes: `T` steps, `B` parallel environments, `N` a batch, `A` actions, `S` states.
Trajectories are time-major, `[T, B, ...]`. Nothing here imports from rljax.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Key = jax.Array  # a typed key, `jax.random.key(0)`; a function consumes the key it is given
PyTree = Any
Metrics = Mapping[str, Any]  # scalars named "family/quantity", or `Mean`s


def identity(x):
    """Returns `x`: the `average` of one worker."""
    return x


class Mean(NamedTuple):
    """A metric that is summed over steps, workers and updates before it is divided."""

    total: Array
    weight: Array


class Shared(NamedTuple):
    """A number that is the same in all runs of one program: a step counter, a ring's cursor.

    Runs that go side by side keep it out of their axis, so that what is decided by it (`cond`, the
    length of a loop) is decided once, and not computed both ways with copies of all it touches.
    """

    value: Array


class EnvSpec(NamedTuple):
    """What an agent must know of an environment before it sees one."""

    obs_shape: tuple[int, ...] = ()
    num_actions: int = 0  # 0: actions are continuous
    action_shape: tuple[int, ...] = ()
    action_low: Any = -1.0  # scalar or [*action_shape], continuous actions alone
    action_high: Any = 1.0
    num_states: int = 0  # 0: observations are not state indices
    num_envs: int = 1  # B, how many run side by side
    max_episode_steps: int = 0  # 0: no time limit is known
    env_id: str = "Env"
    model: Any = None  # `ops.planning.Model`, exact, where the environment knows it
    obs_dtype: Any = "float32"  # as replay keeps observations: "uint8" for images of bytes


class Transition(NamedTuple):
    """One step of experience, `[...]` being `[T, B]` in a trajectory or `[N]` in a batch."""

    obs: PyTree  # [..., *obs_shape]  s_t
    action: Array  # [..., *action_shape]  a_t
    reward: Array  # [...]  r_{t+1}
    terminated: Array  # [...] bool: the task ended, no value lies beyond
    truncated: Array  # [...] bool: a time limit cut the episode, value does lie beyond
    next_obs: PyTree  # [..., *obs_shape]  s_{t+1}, as it was before any reset
    extras: PyTree = ()  # [..., *]  what `Agent.act` asked to be remembered


class Agent(NamedTuple):
    """A learner of behaviour: pure functions over one explicit state.

    init:   `(key) -> state`
    act:    `(state, obs[B], key) -> (action[B], extras[B])`, exploring
    greedy: `(state, obs[B], key) -> action[B]`, for evaluation
    update: `(state, trajectory[T, B], key) -> (state, metrics)`
    draw:   `(key, T) -> noise[T, ...]`, the random numbers of `T` calls of `act`. Where `act`
            takes a key it also takes one row of them, so that a rollout draws for all its steps
            at once; `jax.random.split`, the default, gives each step its key.
    """

    init: Callable[[Key], PyTree]
    act: Callable[[PyTree, PyTree, Any], tuple[Array, PyTree]]
    greedy: Callable[[PyTree, PyTree, Key], Array]
    update: Callable[[PyTree, Transition, Key], tuple[PyTree, Metrics]]
    draw: Callable[[Key, int], PyTree] = jax.random.split


class Step(NamedTuple):
    """What one environment step tells."""

    obs: PyTree  # the observation to act on next: after a reset where the episode ended
    reward: Array
    terminated: Array
    truncated: Array
    next_obs: PyTree  # the observation reached: before any reset
    info: Mapping[str, Array] = {}


class Env(NamedTuple):
    """An environment that resets itself.

    reset:  `(key) -> (state, obs)`
    step:   `(state, action, key) -> (state, Step)`
    draw:   `(key, T) -> noise[T, ...]`, the chance of `T` steps; `step` takes a key or one row
            of it, so that a rollout draws for all its steps at once.
    render: `(state) -> str`, the world as text, or None where it has no such picture.
    """

    spec: EnvSpec
    reset: Callable[[Key], tuple[PyTree, PyTree]]
    step: Callable[[PyTree, Array, Any], tuple[PyTree, Step]]
    draw: Callable[[Key, int], PyTree] = jax.random.split
    render: Callable[[PyTree], str] | None = None


class Sample(NamedTuple):
    """A batch drawn from replay."""

    transitions: PyTree  # [N, ...]
    indices: Array  # [N] int32, their places
    probability: Array  # [N] with which each was drawn
    least: Array  # [] the smallest probability of any item that replay holds


class Replay(NamedTuple):
    """Experience replay: pure functions over one explicit state.

    init:         `(item) -> state`, from one example (or its shapes) without batch axes
    add:          `(state, items[T, B]) -> state`
    sample:       `(state, key) -> Sample`
    reprioritize: `(state, indices[N], td_error[N]) -> state`; uniform replay returns its state
    size:         `(state) -> int32`, how many items it holds
    draw:         `(key, n) -> noise[n, ...]`, the chance of `n` samples; `sample` takes a key or
                  one row of it, so that an update draws for all its samples at once
    """

    init: Callable[[PyTree], PyTree]
    add: Callable[[PyTree, PyTree], PyTree]
    sample: Callable[[PyTree, Any], Sample]
    reprioritize: Callable[[PyTree, Array, Array], PyTree]
    size: Callable[[PyTree], Array]
    draw: Callable[[Key, int], PyTree] = jax.random.split


class TrainState(NamedTuple):
    """All there is to resume from: saving this pytree saves the run."""

    agent: PyTree
    env: PyTree  # [B, ...]
    obs: PyTree  # [B, *obs_shape]
    key: Key
    episodes: PyTree  # return and length [B] so far of the episodes under way
    num_updates: Array  # int32; environment steps are num_updates * T * B, counted on the host


class Learner(NamedTuple):
    """An agent joined to its environments.

    init: `(key, worker=0) -> TrainState`; workers share the agent and nothing else
    step: `(TrainState) -> (TrainState, Metrics)`, one rollout and one update
    """

    init: Callable[..., TrainState]
    step: Callable[[TrainState], tuple[TrainState, Metrics]]


def is_key(x: Any) -> bool:
    """Whether `x` is a typed random key (or an array of them)."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def drawn(draw: Callable[[Key, int], PyTree], key_or_noise: Any) -> PyTree:
    """The noise of one step, drawn from a key; what was drawn before is returned as it is.

    An array of keys is noise: the row that `jax.random.split`, the default `draw`, made.
    """
    if not is_key(key_or_noise) or key_or_noise.ndim:
        return key_or_noise
    return jax.tree.map(lambda x: x[0], draw(key_or_noise, 1))
