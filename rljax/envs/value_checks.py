"""Checks of the values of an environment over random steps.

A NaN, a state without a legal action, or an environment that never resets itself would spoil
training without an error.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rljax.envs import host
from rljax.envs.checks import EnvFault, check_shapes, fail, shorten
from rljax.ops.observations import (
    choices,
    field,
    has_no_legal_action,
    num_logits,
    split_actions,
    split_mask,
    state_index,
)
from rljax.types import Env, EnvSpec, Key, PyTree, Step, sample_one

NUM_STEPS = 128  # random steps
NUM_RESETS = 16  # initial observations


def validate(env: Env) -> None:
    """Checks an environment: first its shapes, then its values over random steps.

    `rljax.train` checks environments of the user in this way. `rljax.check_env` finds more.

    Args:
      env: a single environment that resets itself.

    Raises:
      EnvFault: a fault of `check_shapes`; a NaN or infinite observation or reward; a state index
        out of range; a state without a legal action; or an environment that does not reset
        itself. It is a ValueError.

    Example:
      >>> from rljax.envs import make
      >>> validate(make("rljax/Treasure"))
    """
    check_shapes(env)
    for fault in value_faults(env):
        raise fault


def value_faults(env: Env) -> list[EnvFault]:
    """Returns the faults of the values over random steps; see `validate`."""
    faults, (starts, steps) = [], _random_steps(env)
    for check in (_check_state_indices, _check_legal, _check_finite, _check_resets):
        try:
            check(env.spec, starts, steps)
        except EnvFault as fault:
            faults.append(fault)
    return faults


def random_action(spec: EnvSpec, obs: PyTree, key: Key) -> jax.Array:
    """Returns a random action, a legal one where the observation has an action mask."""
    if spec.num_actions:
        noise = jax.random.uniform(key, (num_logits(spec.num_actions),))
        if spec.action_mask:
            noise = jnp.where(field(obs, spec.action_mask), noise, -1.0)
        actions = [x.argmax() for x in split_actions(noise, choices(spec.num_actions))]
        return jnp.stack(actions) if isinstance(spec.num_actions, tuple) else actions[0]
    low, high = (
        jnp.broadcast_to(jnp.float32(bound), spec.action_shape)
        for bound in (spec.action_low, spec.action_high)
    )
    return jax.random.uniform(key, low.shape, minval=low, maxval=high)


def _random_steps(env: Env) -> tuple[PyTree, Step]:
    """Returns initial observations `[NUM_RESETS]` and the steps `[NUM_STEPS]` of one copy."""
    spec = env.spec

    def simulate(key):
        reset_key, key = jax.random.split(key)
        states, starts = jax.vmap(env.reset)(jax.random.split(reset_key, NUM_RESETS))
        first = jax.tree.map(lambda x: x[0], (states, starts))

        def random_step(carry, key):
            state, obs = carry
            action_key, step_key = jax.random.split(key)
            noise = sample_one(env.sample_noise, step_key)
            state, step = env.step(state, random_action(spec, obs, action_key), noise)
            return (state, step.obs), step._replace(info={})

        steps = jax.lax.scan(random_step, first, jax.random.split(key, NUM_STEPS))[1]
        return starts, steps, states

    # the program runs once, so it is compiled without optimization, in half the time
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    outputs = jax.jit(simulate, compiler_options=options)(jax.random.key(0))
    starts, steps, states = jax.block_until_ready(outputs)
    host.close(states)
    return jax.device_get((starts, steps))


def _check_finite(spec: EnvSpec, starts: PyTree, steps: Step) -> None:
    _check_rows(spec, "obs", starts, "`reset`")
    for name in ("next_obs", "obs", "reward"):
        _check_rows(spec, name, getattr(steps, name), "{} random steps")


def _check_rows(spec: EnvSpec, name: str, tree: PyTree, when: str) -> None:
    for leaf in jax.tree.leaves(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        bad = ~np.isfinite(leaf.reshape(len(leaf), -1))
        if bad.any():
            row = int(bad.any(axis=1).argmax())
            value = leaf.reshape(len(leaf), -1)[row][bad[row]][0]
            fail(
                spec, f"`{name}` contains {value} after {when.format(row + 1)}",
                "look for a division by zero, a root or a logarithm",
            )  # fmt: skip


def _check_state_indices(spec: EnvSpec, starts: PyTree, steps: Step) -> None:
    if not spec.num_states:
        return
    each = (state_index(spec, obs) for obs in (starts, steps.obs, steps.next_obs))
    indices = np.concatenate([np.ravel(x) for x in each])
    out_of_range = indices[(indices < 0) | (indices >= spec.num_states)]
    if out_of_range.size:
        fail(
            spec, f"`obs` is {out_of_range[0]}, but `num_states` is {spec.num_states}",
            f"return indices from 0 to {spec.num_states - 1}",
        )  # fmt: skip


def _check_legal(spec: EnvSpec, starts: PyTree, steps: Step) -> None:
    """Checks that each observation to act on has a legal action."""
    for obs, when in ((starts, "`reset`"), (steps.obs, "{} random steps")):
        rest, mask = split_mask(spec, obs)
        if mask is not None and (stuck := has_no_legal_action(spec, mask)).any():
            row = int(stuck.argmax())
            values = jax.tree.map(lambda x: np.asarray(x[row]), rest)
            fail(
                spec, f"the observation after {when.format(row + 1)} has no legal action "
                f"({shorten(values)})", "end the episode, `terminated`, where no action is legal",
            )  # fmt: skip


def _check_resets(spec: EnvSpec, starts: PyTree, steps: Step) -> None:
    """Checks that `obs` at the end of an episode is an initial observation, not `next_obs`.

    The two may be equal if that observation is also an initial one, as in a bandit or in a walk
    that ends where it started.
    """
    ends = np.flatnonzero(steps.terminated | steps.truncated)
    if not ends.size:
        return
    obs, next_obs, initial_obs = map(_flatten_rows, (steps.obs, steps.next_obs, starts))
    obs, next_obs = obs[ends], next_obs[ends]
    is_initial = (next_obs[:, None] == initial_obs[None]).all(axis=-1)
    if (obs == next_obs).all() and not is_initial.any():
        fail(
            spec, f"`obs` equals `next_obs` where an episode ends (after {ends[0] + 1} random "
            "steps)", "return the last observation of the episode as `next_obs` and the first of "
            "the next episode as `obs`; `rljax.envs.auto_reset` does so for a `step` that does "
            "not reset",
        )  # fmt: skip


def _flatten_rows(tree: PyTree) -> np.ndarray:
    """Concatenates the leaves `[N, ...]` of a tree to one array `[N, size]`."""
    return np.concatenate([x.reshape(len(x), -1) for x in jax.tree.leaves(tree)], axis=1)
