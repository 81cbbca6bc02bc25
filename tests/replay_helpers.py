"""Items for replay buffers, and buffers of every kind, for the tests of `rljax.replay`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rljax import replay
from rljax.replay import ring
from rljax.training import batching, runs
from rljax.types import Transition, sample_one


def item(number):
    """A transition whose fields are functions of its number, each with a dtype of its own."""
    number = jnp.asarray(number)
    return Transition(
        obs={"image": jnp.stack([number % 251] * 3, -1).astype(jnp.uint8), "number": number},
        action=number.astype(jnp.int16), reward=number.astype(jnp.float32),
        terminated=number % 2 == 0, truncated=number % 3 == 0, next_obs=-number,
    )  # fmt: skip


def items(start, num_steps, num_envs):
    """Transitions `[T, B]`, numbered from `start` on."""
    return item(start + jnp.arange(num_steps * num_envs).reshape(num_steps, num_envs))


def kinds(capacity, batch_size):
    return {
        "uniform": replay.uniform(capacity, batch_size),
        "prioritized": replay.prioritized(capacity, batch_size),
        "rank_based": replay.rank_based(capacity, batch_size, sort_every=4),
    }


KINDS = tuple(kinds(1, 1))


def sampler(buffer):
    """`(state, key) -> Sample`: samples with the noise that a key gives."""
    return lambda state, key: buffer.sample(state, sample_one(buffer.sample_noise, key))


@functools.cache
def jitted_add(buffer):
    return jax.jit(buffer.add)


@functools.cache
def jitted_samples(buffer):
    return jax.jit(jax.vmap(sampler(buffer), (None, 0)))


def filled(buffer, count, start=0):
    """The state of a buffer to which `count` items were added one by one."""
    state = buffer.init(item(0))
    for number in range(start, start + count):
        state = jitted_add(buffer)(state, items(number, 1, 1))
    return state


def ring_of(state):
    return state if isinstance(state, ring.Ring) else state.ring


def sample_many(buffer, state, times, key=None):
    """Samples `[times, N]`."""
    keys = jax.random.split(jax.random.key(0) if key is None else key, times)
    return jitted_samples(buffer)(state, keys)


def equations(jaxpr):
    """Every equation of a program, also of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        yield from (
            inner for jaxpr in jax.core.jaxprs_in_params(equation.params)
            for inner in equations(jaxpr)
        )  # fmt: skip


def sizes_in_programs(plan, num_runs):
    """Yields the sizes of a program that starts with `init`, and of one that starts with states.

    Each is a list with the primitive and the size of the largest output of every equation.
    """
    learner_of, inits = runs.traced_once(plan.make_learner()), plan.run_inits()

    def init(init):
        return runs.init_run(learner_of, plan.config, init)

    def advance(run):
        return runs.advance_run(learner_of, plan.config, run, jnp.int32(5), jnp.bool_(False))

    states = jax.eval_shape(batching.over_runs(init, num_runs), inits)
    new = batching.over_runs(lambda x: advance(init(x)), num_runs)
    for program, argument in ((new, inits), (batching.over_runs(advance, num_runs), states)):
        yield [
            (equation.primitive.name, max((np.size(x.aval) for x in equation.outvars), default=0))
            for equation in equations(jax.make_jaxpr(program)(argument).jaxpr)
        ]
