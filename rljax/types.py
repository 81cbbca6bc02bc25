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

    Observations are one array or a tree of arrays (dict, tuple, NamedTuple); `obs_shape` is then
    the same tree of shapes, and `obs_dtype` one dtype for all leaves or a tree of dtypes.
    """

    obs_shape: PyTree = ()
    num_actions: Any = 0  # discrete actions, or (n_1, ..., n_K) for K at once; 0: continuous
    action_shape: tuple[int, ...] = ()  # of one continuous action
    action_low: Any = -1.0  # bounds of continuous actions, scalars or [*action_shape]
    action_high: Any = 1.0
    num_states: int = 0  # number of states where observations are state indices, else 0
    num_envs: int = 1  # B, parallel environments
    max_episode_steps: int = 0  # time limit; 0 if none is known
    env_id: str = "Env"  # name in messages and run directories
    model: Any = None  # exact `ops.planning.Model`, for environments that have one
    obs_dtype: PyTree = "float32"  # in which replay stores observations, "uint8" for images
    action_mask: str = ""  # field of the observation with the legal actions, bool [A]
    num_players: int = 1  # 2: zero-sum, in turns; obs and reward are those of the player who acts
    termination: Any = None  # (obs, action, next_obs) -> bool [...], the rule of the task, if known
    simulator: Any = None  # `Env` that a planner steps from the states of `StateObs`


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
    """The observation of an agent with a memory (see `envs.memory`)."""

    obs: PyTree  # observation of the environment, [..., *obs_shape]
    memory: Array  # memory after the previous steps of the episode, [..., H]


class StateObs(NamedTuple):
    """The observation of an agent that plans with the environment (see `envs.state`)."""

    obs: PyTree  # observation of the environment, [..., *obs_shape]
    state: PyTree  # state of the environment, [...], from which the agent can step it


class SampleNoise(Protocol):
    """The random numbers of many calls at once, which is faster than one call a step.

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
        """Samples exploratory actions; the state does not change.

        Args:
          state: the state of the agent.
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
    """A reinforcement-learning algorithm as pure functions over one explicit state."""

    init: AgentInit  # (key) -> state
    act: Act  # (state, obs[B], noise) -> (action[B], extras[B])
    greedy: Greedy  # (state, obs[B], key) -> action[B]
    update: AgentUpdate  # (state, trajectory[T, B], key) -> (state, metrics)
    sample_noise: SampleNoise = jax.random.split  # (key, T) -> noise of T calls of `act`
    noise_repeat: int = 1  # steps of training for which `act` gets the same row of noise
    search: Any = None  # (state, obs[B], key) -> `agents.search.Search` of `greedy`, of planners


class Step(NamedTuple):
    """The result of one environment step."""

    obs: PyTree  # observation to act on next: the first of a new episode where one ended
    reward: Array  # float32
    terminated: Array  # bool: the episode ended in a terminal state
    truncated: Array  # bool: a time limit ended the episode
    next_obs: PyTree  # observation reached by the step, before any reset
    info: Mapping[str, Array] = {}  # further quantities; returns sum `unclipped_reward`, if any


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


class Observe(Protocol):
    def __call__(self, state: PyTree, /) -> PyTree:
        """Returns the observation of a state."""
        ...


class Batch(Protocol):
    def __call__(self, num_envs: int, /) -> "Env":
        """Returns a batch of `num_envs` copies."""
        ...


class Env(NamedTuple):
    """An environment that resets itself: one, or a batch of `spec.num_envs`."""

    spec: EnvSpec
    reset: EnvReset  # (key) -> (state, obs)
    step: EnvStep  # (state, action, noise) -> (state, Step)
    sample_noise: SampleNoise = jax.random.split  # (key, T) -> noise of T calls of `step`
    render: Render | None = None  # (state) -> text; None where there is no text form
    observe: Observe | None = None  # (state) -> obs, if obs depends on what `auto_reset` keeps
    batch: Batch | None = None  # (num_envs) -> Env, for one that `vmap` cannot copy
    before_reset: Any = None  # the `Env` inside `auto_reset`, whose `step` does not reset


class Sample(NamedTuple):
    """A batch sampled from replay."""

    transitions: PyTree  # [N, ...], of sequences [L, N, ...]
    indices: Array  # [N] int32, slots in the buffer, of sequences those of their first steps
    probability: Array  # [N], probability with which each was sampled
    min_probability: Array  # [], smallest sampling probability of any item in the buffer


class ReplayInit(Protocol):
    def __call__(self, item: PyTree, /) -> PyTree:
        """Returns an empty buffer for items like this one (or its shapes), without batch axes."""
        ...


class ReplayAdd(Protocol):
    def __call__(self, state: PyTree, items: PyTree, skip: Any = 0, /) -> PyTree:
        """Stores `items[T, B]` except the first `skip` of the flattened `T * B`.

        Items are `Transition`s, whose extras hold whatever the agent stores beside them.
        """
        ...


class ReplaySample(Protocol):
    def __call__(self, state: PyTree, noise: Any, /) -> Sample:
        """Samples a batch; `noise` is one row of `Replay.sample_noise`."""
        ...


class Reprioritize(Protocol):
    def __call__(self, state: PyTree, indices: Array, td_error: Array, /) -> PyTree:
        """Sets the priorities of items `[N]` from their TD errors; uniform replay has none."""
        ...


class ReplaySize(Protocol):
    def __call__(self, state: PyTree, /) -> Array:
        """Returns the number of items in the buffer, int32."""
        ...


class Replay(NamedTuple):
    """Experience replay as pure functions over one explicit state."""

    init: ReplayInit  # (item) -> state
    add: ReplayAdd  # (state, items[T, B], skip=0) -> state
    sample: ReplaySample  # (state, noise) -> Sample
    reprioritize: Reprioritize  # (state, indices[N], td_error[N]) -> state
    size: ReplaySize  # (state) -> int32
    sample_noise: SampleNoise = jax.random.split  # (key, n) -> noise of n calls of `sample`


class TrainState(NamedTuple):
    """The complete state of a run: saving this pytree saves the run."""

    agent: PyTree
    env: PyTree  # states of the environments, [B, ...]
    obs: PyTree  # observations to act on next, [B, *obs_shape]
    key: Key
    episodes: PyTree  # return and length so far of the episodes in progress, [B] each
    num_updates: Array  # int32; environment steps are num_updates * T * B
    noise_key: Key | None = None  # of the agent's noise, where several rollouts repeat it


class LearnerInit(Protocol):
    def __call__(self, key: Key, worker: int | Array = 0, /) -> TrainState:
        """Returns the initial state; workers share the agent, not their environments."""
        ...


class LearnerStep(Protocol):
    def __call__(self, state: TrainState, /) -> tuple[TrainState, Metrics]:
        """Collects one rollout and learns from it. Returns the new state and metrics."""
        ...


class Learner(NamedTuple):
    """An agent and its environments as one training loop."""

    init: LearnerInit  # (key, worker=0) -> TrainState
    step: LearnerStep  # (TrainState) -> (TrainState, metrics)


def is_key(x: Any) -> bool:
    """Whether `x` is a typed random key, or an array of them."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def sample_one(sample_noise: SampleNoise, key: Key) -> PyTree:
    """Returns the noise of a single call, for callers that hold a key.

    Example:
      >>> noise = sample_one(lambda key, num: jax.random.normal(key, (num, 3)), jax.random.key(0))
      >>> noise.shape
      (3,)
    """
    return jax.tree.map(lambda x: x[0], sample_noise(key, 1))


def unclipped_reward(step: Step) -> Array:
    """Returns the reward of the task, where the environment clips the one to learn from."""
    return step.info.get("unclipped_reward", step.reward)


def params_of(agent_state: PyTree) -> PyTree:
    """Returns the parameters in an agent's state, also inside wrapped agents; None if absent."""
    while not hasattr(agent_state, "params") and hasattr(agent_state, "agent"):
        agent_state = agent_state.agent
    return getattr(agent_state, "params", None)
