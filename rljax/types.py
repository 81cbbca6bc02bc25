"""Core types: the records of pure functions that every other module is written in.

Shapes: `T` steps, `B` parallel environments, `N` a batch, `A` actions, `S` states.
Trajectories are time-major, `[T, B, ...]`. Nothing here imports from rljax.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

Array = jax.Array
Key = jax.Array  # a typed key, `jax.random.key(0)`; a function consumes the key it is given
PyTree = Any
Metrics = Mapping[str, Any]  # scalars named "family/quantity", or `Mean`s


class Average(Protocol):
    """The mean over workers: the identity for one worker, else a `jax.lax.pmean`."""

    def __call__(self, tree: PyTree, /) -> PyTree:
        """Returns a pytree of the same structure, equal in all workers."""
        ...


def identity(x):
    """Returns `x`: the `average` of a single worker."""
    return x


class Mean(NamedTuple):
    """A metric that is summed over steps, workers and updates before it is divided."""

    total: Array
    weight: Array


class Shared(NamedTuple):
    """A number that is the same in all runs of one program: a step counter, a ring's cursor.

    `training.runs` keeps it unbatched when it maps over runs. A `cond` or a loop length that
    depends on it is then evaluated once, instead of as a select over both branches.
    """

    value: Array


class EnvSpec(NamedTuple):
    """The static description of an environment that an agent is built from.

    Attributes:
      obs_shape: shape of one observation.
      num_actions: number of discrete actions; 0 for continuous actions.
      action_shape: shape of one continuous action.
      action_low, action_high: bounds of continuous actions, scalars or `[*action_shape]`.
      num_states: number of states where observations are state indices, else 0.
      num_envs: number of parallel environments, B.
      max_episode_steps: time limit; 0 if none is known.
      env_id: name used in messages and run directories.
      model: exact `ops.planning.Model`, for environments that have one.
      obs_dtype: dtype in which replay stores observations, such as "uint8" for images.
    """

    obs_shape: tuple[int, ...] = ()
    num_actions: int = 0
    action_shape: tuple[int, ...] = ()
    action_low: Any = -1.0
    action_high: Any = 1.0
    num_states: int = 0
    num_envs: int = 1
    max_episode_steps: int = 0
    env_id: str = "Env"
    model: Any = None
    obs_dtype: Any = "float32"


class Transition(NamedTuple):
    """One step of interaction. Leading axes: `[T, B]` in a rollout, `[N]` in a batch.

    Attributes:
      obs: observation the action was chosen from, `[..., *obs_shape]`.
      action: action executed, `[..., *action_shape]`.
      reward: reward received, `[...]`.
      terminated: the episode ended in a terminal state; the value of `next_obs` is 0.
      truncated: a time limit cut the episode; bootstrap from the value of `next_obs`.
      next_obs: observation reached by the action, before any reset.
      extras: what `Agent.act` returned beside the action, such as log-probabilities.
    """

    obs: PyTree
    action: Array
    reward: Array
    terminated: Array
    truncated: Array
    next_obs: PyTree
    extras: PyTree = ()


class RecurrentObs(NamedTuple):
    """The observation of a recurrent agent (see `envs.memory`).

    Attributes:
      obs: observation of the environment, `[..., *obs_shape]`.
      memory: hidden state after the previous steps of the episode, `[..., H]`.
    """

    obs: PyTree
    memory: Array


class SampleNoise(Protocol):
    """Random numbers for many calls at once, which is faster than one call a step.

    The default is `jax.random.split`: the noise of a call is then a key of its own.
    """

    def __call__(self, key: Key, num: int, /) -> PyTree:
        """Returns the noise of `num` calls, `[num, ...]`; row i is the argument of call i."""
        ...


class AgentInit(Protocol):
    def __call__(self, key: Key, /) -> PyTree:
        """Returns the initial state of the agent."""
        ...


class Act(Protocol):
    def __call__(self, state: PyTree, obs: PyTree, noise: Any, /) -> tuple[Any, PyTree]:
        """Samples exploratory actions.

        Args:
          state: the agent's state, which acting does not change.
          obs: observations `[B, *obs_shape]`.
          noise: one row of `Agent.sample_noise`; by default a key.

        Returns:
          Actions `[B, *action_shape]` and extras `[B, ...]` to store in the trajectory.
        """
        ...


class Greedy(Protocol):
    def __call__(self, state: PyTree, obs: PyTree, key: Key, /) -> Any:
        """Returns the actions `[B, *action_shape]` used in evaluation; `key` breaks ties."""
        ...


class AgentUpdate(Protocol):
    def __call__(
        self, state: PyTree, trajectory: Transition, key: Key, /
    ) -> tuple[PyTree, Metrics]:
        """Learns from one rollout `[T, B]`. Returns the new state and metrics."""
        ...


class Agent(NamedTuple):
    """A reinforcement-learning algorithm as pure functions over one explicit state.

    Attributes:
      init: `(key) -> state`.
      act: `(state, obs[B], noise) -> (action[B], extras[B])`, exploratory actions.
      greedy: `(state, obs[B], key) -> action[B]`, actions for evaluation.
      update: `(state, trajectory[T, B], key) -> (state, metrics)`, learns from one rollout.
      sample_noise: `(key, T) -> noise[T, ...]`, the random numbers of `T` calls of `act`.
    """

    init: AgentInit
    act: Act
    greedy: Greedy
    update: AgentUpdate
    sample_noise: SampleNoise = jax.random.split


class Step(NamedTuple):
    """The result of one environment step.

    Attributes:
      obs: observation to act on next: the first of a new episode where one ended.
      reward: reward of the step, float32.
      terminated: the episode ended in a terminal state, bool.
      truncated: a time limit ended the episode, bool.
      next_obs: observation reached by the step, before any reset.
      info: further quantities, by name.
    """

    obs: PyTree
    reward: Array
    terminated: Array
    truncated: Array
    next_obs: PyTree
    info: Mapping[str, Array] = {}


class EnvReset(Protocol):
    def __call__(self, key: Key, /) -> tuple[PyTree, PyTree]:
        """Returns the state and the first observation of a new episode."""
        ...


class EnvStep(Protocol):
    def __call__(self, state: PyTree, action: Any, noise: Any, /) -> tuple[PyTree, Step]:
        """Takes one step; `noise` is one row of `Env.sample_noise`, by default a key."""
        ...


class Render(Protocol):
    def __call__(self, state: PyTree, /) -> str:
        """Returns the state of one environment as text."""
        ...


class Env(NamedTuple):
    """An environment that resets itself, one or a batch of `spec.num_envs`.

    Attributes:
      spec: its static description.
      reset: `(key) -> (state, obs)`.
      step: `(state, action, noise) -> (state, Step)`.
      sample_noise: `(key, T) -> noise[T, ...]`, the random numbers of `T` calls of `step`.
      render: `(state) -> str`, the state as text; None where there is no text form.
    """

    spec: EnvSpec
    reset: EnvReset
    step: EnvStep
    sample_noise: SampleNoise = jax.random.split
    render: Render | None = None


class Sample(NamedTuple):
    """A batch sampled from replay.

    Attributes:
      transitions: `[N, ...]`.
      indices: slots of the transitions in the buffer, `[N]` int32.
      probability: probability with which each was sampled, `[N]`.
      min_probability: smallest sampling probability of any item in the buffer, `[]`.
    """

    transitions: PyTree
    indices: Array
    probability: Array
    min_probability: Array


class ReplayInit(Protocol):
    def __call__(self, item: PyTree, /) -> PyTree:
        """Returns an empty buffer for items like this one, without batch axes."""
        ...


class ReplayAdd(Protocol):
    def __call__(self, state: PyTree, items: PyTree, skip: Any = 0, /) -> PyTree:
        """Stores `items[T, B]` except the first `skip` of the flattened `T * B`."""
        ...


class ReplaySample(Protocol):
    def __call__(self, state: PyTree, noise: Any, /) -> Sample:
        """Samples a batch; `noise` is one row of `Replay.sample_noise`."""
        ...


class Reprioritize(Protocol):
    def __call__(self, state: PyTree, indices: Array, td_error: Array, /) -> PyTree:
        """Sets the priorities of items `[N]` from their TD errors `[N]`."""
        ...


class ReplaySize(Protocol):
    def __call__(self, state: PyTree, /) -> Array:
        """Returns the number of items in the buffer, int32."""
        ...


class Replay(NamedTuple):
    """Experience replay as pure functions over one explicit state.

    Attributes:
      init: `(item) -> state`, from one example item or its shapes.
      add: `(state, items[T, B], skip=0) -> state`.
      sample: `(state, noise) -> Sample`.
      reprioritize: `(state, indices[N], td_error[N]) -> state`; the identity for uniform replay.
      size: `(state) -> int32`, the number of items.
      sample_noise: `(key, n) -> noise[n, ...]`, the random numbers of `n` calls of `sample`.
    """

    init: ReplayInit
    add: ReplayAdd
    sample: ReplaySample
    reprioritize: Reprioritize
    size: ReplaySize
    sample_noise: SampleNoise = jax.random.split


class TrainState(NamedTuple):
    """The complete state of a run: saving this pytree saves the run.

    Attributes:
      agent: the agent's state.
      env: states of the environments, `[B, ...]`.
      obs: observations to act on next, `[B, *obs_shape]`.
      key: random key of the next step.
      episodes: return and length so far of the episodes in progress, `[B]` each.
      num_updates: updates done, int32; environment steps are `num_updates * T * B`.
    """

    agent: PyTree
    env: PyTree
    obs: PyTree
    key: Key
    episodes: PyTree
    num_updates: Array


class LearnerInit(Protocol):
    def __call__(self, key: Key, worker: int | Array = 0, /) -> TrainState:
        """Returns the initial state; workers share the agent, not their environments."""
        ...


class LearnerStep(Protocol):
    def __call__(self, state: TrainState, /) -> tuple[TrainState, Metrics]:
        """One rollout and one update."""
        ...


class Learner(NamedTuple):
    """An agent and its environments as one training loop.

    Attributes:
      init: `(key, worker=0) -> TrainState`.
      step: `(TrainState) -> (TrainState, Metrics)`, one rollout and one update.
    """

    init: LearnerInit
    step: LearnerStep


def is_key(x: Any) -> bool:
    """Whether `x` is a typed random key, or an array of them."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def sample_one(sample_noise: SampleNoise, key: Key) -> PyTree:
    """Returns the noise of a single call, for callers that hold a key.

    Example:
      >>> import jax
      >>> noise = sample_one(lambda key, num: jax.random.normal(key, (num, 3)), jax.random.key(0))
      >>> noise.shape
      (3,)
    """
    return jax.tree.map(lambda x: x[0], sample_noise(key, 1))


def params_of(agent_state: PyTree) -> PyTree:
    """Returns the parameters in an agent's state, also inside wrapped agents; None if absent."""
    while not hasattr(agent_state, "params") and hasattr(agent_state, "agent"):
        agent_state = agent_state.agent
    return getattr(agent_state, "params", None)
