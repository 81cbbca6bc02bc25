"""Learning counted in episodes, as textbooks count it, by many learners side by side."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.types import Array, Key, Learner, PyTree, TrainState


class Episodes(NamedTuple):
    """The first episodes of each of `R` learners, exploration and all."""

    returns: Array  # [R, E] undiscounted
    lengths: Array  # [R, E] int32
    seen: PyTree  # [R, E, ...] what `watch` saw when each was over and learned from
    finished: Array  # [R] int32, how many there are
    state: TrainState  # [R, ...]


def learn_episodes(
    learner: Learner, keys: Key, num_episodes: int, *, max_updates: int = 1_000_000,
    watch: Callable[[TrainState], PyTree] = lambda state: (),
) -> Episodes:  # fmt: skip
    """Learns until every one of `R` learners has finished its first `num_episodes`. Jit it.

    A budget of steps would cut off the learners that are slow, and their last episodes with them.
    Who is done early goes on learning, and is not counted further.

    Args:
      learner: of one environment, one step an update.
      keys: `[R]`.
      max_updates: of each; what is not finished by then is missing from `finished`.
      watch: `(state) -> tree of numbers`, of one learner, looked at where an episode ended.
    """
    state = jax.vmap(learner.init)(keys)
    rows = jnp.arange(len(keys))
    shape = (len(keys), num_episodes)
    like = jax.eval_shape(jax.vmap(watch), state)
    seen = jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape[1:]), x.dtype), like)
    begin = Episodes(
        jnp.zeros(shape), jnp.zeros(shape, jnp.int32), seen, jnp.zeros(len(keys), jnp.int32), state
    )

    def unfinished(carry):
        time, played = carry
        return (time < max_updates) & (played.finished < num_episodes).any()

    def one_step(carry):
        time, played = carry
        state, metrics = jax.vmap(learner.step)(played.state)
        ended = metrics["charts/episodic_length"].weight > 0
        # past the last episode the index is out of bounds: such writes are dropped
        at = rows, played.finished

        def note(old: Array, new: Any) -> Array:
            return old.at[rows, jnp.where(ended, played.finished, num_episodes)].set(
                new, mode="drop"
            )

        return time + 1, Episodes(
            played.returns.at[at].add(metrics["charts/reward"], mode="drop"),
            played.lengths.at[at].add(1, mode="drop"),
            jax.tree.map(note, played.seen, jax.vmap(watch)(state)),
            played.finished + ended, state,
        )  # fmt: skip

    return jax.lax.while_loop(unfinished, one_step, (jnp.int32(0), begin))[1]
