"""Training for a number of episodes, as in the figures of Sutton and Barto (2018)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.types import Array, Key, Learner, PyTree, TrainState


class Episodes(NamedTuple):
    """The first E training episodes of each of R runs.

    Attributes:
      returns: undiscounted returns, `[R, E]`.
      lengths: numbers of steps, `[R, E]` int32.
      recorded: outputs of `record` after the last update of each episode, `[R, E, ...]`.
      num_finished: number of episodes that ended, `[R]` int32; may exceed E.
      state: final states, `[R, ...]`.
    """

    returns: Array
    lengths: Array
    recorded: PyTree
    num_finished: Array
    state: TrainState


def learn_episodes(
    learner: Learner, keys: Key, num_episodes: int, *, max_updates: int = 1_000_000,
    record: Callable[[TrainState], PyTree] = lambda state: (),
) -> Episodes:  # fmt: skip
    """Trains until each of R runs has finished its first `num_episodes` episodes; wrap it in `jit`.

    A limit of steps would exclude the last episodes of slow runs and bias the mean. Runs that
    finish early continue to learn; their later episodes are not recorded.

    Args:
      learner: a learner with a single environment and one step per update.
      keys: random keys of the runs, `[R]`.
      num_episodes: number of episodes, E.
      max_updates: maximum number of updates of each run.
      record: `(state) -> pytree of arrays`, evaluated at the end of each episode of a run.

    Returns:
      The `Episodes`; `num_finished` is less than E if `max_updates` was reached.

    Example:
      >>> import jax, rljax
      >>> env = rljax.build("rljax/Treasure", num_envs=1)
      >>> agent = rljax.q_learning(rljax.AGENTS["q_learning"].config(), env.spec)
      >>> learner = rljax.make_learner(agent, env, num_steps=1)
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> jax.jit(lambda keys: learn_episodes(learner, keys, 3))(keys).returns.tolist()
      [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    state = jax.vmap(learner.init)(keys)
    run = jnp.arange(len(keys))
    shape = (len(keys), num_episodes)
    example = jax.eval_shape(jax.vmap(record), state)
    recorded = jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape[1:]), x.dtype), example)
    returns, lengths = jnp.zeros(shape), jnp.zeros(shape, jnp.int32)
    episodes = Episodes(returns, lengths, recorded, jnp.zeros(len(keys), jnp.int32), state)

    def is_unfinished(carry):
        time, episodes = carry
        return (time < max_updates) & (episodes.num_finished < num_episodes).any()

    def step_once(carry):
        time, episodes = carry
        state, metrics = jax.vmap(learner.step)(episodes.state)
        done = metrics["charts/episodic_length"].weight > 0
        # after the last episode the index is out of bounds: those writes are dropped
        index = run, episodes.num_finished

        def record_if_done(old: Array, new: Any) -> Array:
            episode = jnp.where(done, episodes.num_finished, num_episodes)
            return old.at[run, episode].set(new, mode="drop")

        return time + 1, Episodes(
            episodes.returns.at[index].add(metrics["charts/reward"], mode="drop"),
            episodes.lengths.at[index].add(1, mode="drop"),
            jax.tree.map(record_if_done, episodes.recorded, jax.vmap(record)(state)),
            episodes.num_finished + done, state,
        )  # fmt: skip

    return jax.lax.while_loop(is_unfinished, step_once, (jnp.int32(0), episodes))[1]
