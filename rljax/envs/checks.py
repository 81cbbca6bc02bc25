"""Checks that an environment is well-formed. Errors name the environment, the fault and the cure.

A wrong shape would otherwise be reported by `jax.lax.scan` in a hundred lines; a NaN, or an
environment that never resets itself, would spoil training without an error.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from rljax.ops.observations import (
    action_struct,
    field,
    num_logits,
    obs_structs,
    split_mask,
    state_index,
)
from rljax.types import Env, EnvSpec, Key, PyTree, Step, sample_one

NUM_STEPS = 128  # random steps in `check_env`
NUM_RESETS = 16  # initial observations that `check_env` compares with


def check_env(env: Env) -> None:
    """Checks an environment: first its shapes, then its values over random steps.

    Args:
      env: a single environment that resets itself.

    Raises:
      ValueError: a fault of `check_shapes`; a NaN or infinite observation or reward; a state
        index out of range; a state without a legal action; or an environment that does not reset
        itself.

    Example:
      >>> from rljax.envs import make
      >>> env = make("rljax/Treasure")
      >>> check_env(env)
      >>> check_env(env._replace(spec=env.spec._replace(num_states=3)))
      Traceback (most recent call last):
      ValueError: rljax/Treasure: `obs` is 3, but `num_states` is 3; return indices from 0 to 2.
    """
    check_shapes(env)
    _check_values(env)


def check_shapes(env: Env) -> None:
    """Checks the spec, the shapes and the dtypes of an environment, without running it.

    Args:
      env: a single environment; it need not reset itself.

    Raises:
      ValueError: a contradictory spec; a function that raises an error; an observation, reward or
        flag of the wrong shape or dtype; or a state that changes its structure.
    """
    spec = env.spec
    _check_spec(spec)
    key = jax.eval_shape(lambda: jax.random.key(0))
    output = _trace(spec, "reset", "a key", env.reset, key)
    if not (isinstance(output, tuple) and len(output) == 2):
        _fail(spec, f"`reset` returns {_kind(output)}", "return a pair, `state, obs`")
    state, obs = output
    _check_obs(spec, obs)
    action = action_struct(spec)
    noise = _check_noise(env, key)
    noise_text = ", ".join(map(_format, jax.tree.leaves(noise)))
    argument = f"an action {_format(action)} and noise {noise_text}"
    output = _trace(spec, "step", argument, env.step, state, action, noise)
    if not (isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], Step)):
        _fail(spec, f"`step` returns {_kind(output)}", "return a pair, `state, rljax.Step(...)`")
    next_state, step = output
    _check_same(spec, "obs", obs, step.obs)
    _check_same(spec, "next_obs", obs, step.next_obs)
    _check_same(spec, "state", state, next_state)
    _check_scalar(spec, "reward", step.reward, jnp.float32)
    _check_scalar(spec, "terminated", step.terminated, jnp.bool)
    _check_scalar(spec, "truncated", step.truncated, jnp.bool)


def _fail(spec: EnvSpec, fault: str, cure: str) -> NoReturn:
    raise ValueError(f"{spec.env_id}: {fault}; {cure}.")


def _check_spec(spec: EnvSpec) -> None:
    if spec.num_envs != 1:
        fault = f"`num_envs` is {spec.num_envs}"
        _fail(spec, fault, "pass a single environment, `batched` makes copies")
    num_actions, shape = spec.num_actions, tuple(spec.action_shape)
    actions = f"`num_actions` is {num_actions} and `action_shape` is {shape}"
    if isinstance(num_actions, tuple) and (not num_actions or min(num_actions) < 1):
        _fail(spec, actions, "give the number of choices of each discrete action, such as (3, 5)")
    if not isinstance(num_actions, tuple) and num_actions < 1 and not shape:
        cure = "set `num_actions` for discrete actions, or `action_shape` for continuous ones"
        _fail(spec, actions, cure)
    if num_actions and shape:
        _fail(spec, actions, "set only one of them: actions are either discrete or continuous")
    obs, mask = split_mask(spec, obs_structs(spec))
    if mask is not None and mask.shape != (num_logits(num_actions),):
        _fail(
            spec, f"the field `{spec.action_mask}` of `obs_shape` is {mask.shape}, and {actions}",
            f"make it ({num_logits(num_actions)},), one entry for each discrete action",
        )  # fmt: skip
    if spec.num_states and [x.shape for x in jax.tree.leaves(obs)] != [()]:
        _fail(
            spec, f"`num_states` is {spec.num_states} and `obs_shape` is {spec.obs_shape}",
            "set `obs_shape=()`, since the observation is the index of the state",
        )  # fmt: skip
    if shape:
        _check_action_bounds(spec, shape)


def _check_action_bounds(spec: EnvSpec, shape: tuple[int, ...]) -> None:
    bounds = []
    for name in ("action_low", "action_high"):
        try:
            bound = np.asarray(getattr(spec, name), np.float64)
            bounds.append(np.broadcast_to(bound, shape))
        except (ValueError, TypeError):
            _fail(
                spec, f"`{name}` is {getattr(spec, name)!r}",
                f"set a number, or an array of `action_shape` = {shape}",
            )  # fmt: skip
        if not np.isfinite(bounds[-1]).all():
            cure = "set finite bounds and clip the actions to them"
            _fail(spec, f"`{name}` is {bound.tolist()}", cure)
    if not (bounds[0] < bounds[1]).all():
        low, high = (np.asarray(bound).tolist() for bound in (spec.action_low, spec.action_high))
        fault = f"`action_low` is {low} and `action_high` is {high}"
        _fail(spec, fault, "set each lower bound below its upper bound")


def _trace(spec: EnvSpec, name: str, argument: str, function: Callable, *args: Any) -> PyTree:
    """Returns the shapes of a function's outputs; an error in the function names it."""
    try:
        return jax.eval_shape(function, *args)
    except Exception as error:
        reason = " ".join(str(error).split("\n\n")[0].split()) or "no message"
        raise ValueError(
            f"{spec.env_id}: `{name}` raises {type(error).__name__} under `jit`, for {argument}: "
            f"{reason.rstrip('.')}."
        ) from error


def _check_obs(spec: EnvSpec, obs: PyTree) -> None:
    """Checks that an observation has the structure, the shapes and the dtypes of the spec."""
    if not jax.tree.leaves(obs):
        _fail(spec, "`obs` of `reset` contains no array", "return an array, or a tree of arrays")
    wanted = obs_structs(spec)
    structure = jax.tree.structure(obs)
    if structure != jax.tree.structure(wanted):
        _fail(
            spec, f"`obs` of `reset` is {_shorten(structure)}, but `obs_shape` is "
            f"{spec.obs_shape}", "set `obs_shape` to the same tree, with the shape of each array",
        )  # fmt: skip
    pairs = zip(jax.tree_util.tree_leaves_with_path(obs), jax.tree.leaves(wanted), strict=True)
    for (path, given), leaf in pairs:
        if given.shape != leaf.shape:
            name = f"obs{jax.tree_util.keystr(path)}"
            fault = f"`{name}` of `reset` has shape {given.shape}, but `obs_shape` is {leaf.shape}"
            _fail(spec, fault, "make them equal")
    obs, mask = split_mask(spec, obs)
    dtype = jax.tree.leaves(obs)[0].dtype
    if spec.num_states and not jnp.issubdtype(dtype, jnp.integer):
        _fail(
            spec, f"`num_states` is {spec.num_states}, but `obs` is {dtype}",
            "return the index of the state, an int32",
        )  # fmt: skip
    if mask is not None and mask.dtype != bool:
        _fail(
            spec, f"the action mask `{spec.action_mask}` is {mask.dtype}",
            "return a bool, True where an action is legal",
        )  # fmt: skip


def _check_noise(env: Env, key: Any) -> PyTree:
    """Checks the shape of `sample_noise`; returns the shape of one row, as `step` takes it."""
    noise = _trace(
        env.spec, "sample_noise", "a key and 2 steps", lambda key: env.sample_noise(key, 2), key
    )
    for leaf in jax.tree.leaves(noise):
        if leaf.shape[:1] != (2,):
            _fail(
                env.spec, f"`sample_noise(key, 2)` returns a {_format(leaf)}",
                "return one row for each of the 2 steps",
            )  # fmt: skip
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), noise)


def _check_same(spec: EnvSpec, name: str, before: PyTree, after: PyTree) -> None:
    """Checks that `step` returns the same structure, shapes and dtypes as `reset` did."""
    old, new = jax.tree.structure(before), jax.tree.structure(after)
    if old != new:
        fault = f"`{name}` is {_shorten(old)} after `reset` and {_shorten(new)} after `step`"
        _fail(spec, fault, "return the same structure from both")
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, x), y in pairs:
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            where = f"`{name}{jax.tree_util.keystr(path)}`"
            _fail(
                spec, f"{where} is {_format(x)} after `reset` and {_format(y)} after `step`",
                "return the same shape and dtype from both",
            )  # fmt: skip


def _check_scalar(spec: EnvSpec, name: str, x: Any, dtype: Any) -> None:
    leaf = jax.tree.leaves(x)
    if len(leaf) != 1 or leaf[0] is not x:
        _fail(spec, f"`{name}` is {_kind(x)}", f"return one {jnp.dtype(dtype).name} scalar")
    if x.shape != () or x.dtype != dtype:
        name_of = "jnp.bool" if dtype == jnp.bool else f"jnp.{jnp.dtype(dtype).name}"
        cure = f"return a scalar, `x.astype({name_of})`" if x.shape == () else "return a scalar"
        _fail(spec, f"`{name}` is {_format(x)}", cure)


def _format(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"


def _kind(x: Any) -> str:
    """Returns the type of a value in words: "a tuple of 3"."""
    return f"a {type(x).__name__}" + (f" of {len(x)}" if isinstance(x, (tuple, list, dict)) else "")


def _shorten(value: Any) -> str:
    text = " ".join(str(value).removeprefix("PyTreeDef(").removesuffix(")").split())
    return text if len(text) <= 60 else text[:57] + "..."


def _random_action(spec: EnvSpec, obs: PyTree, key: Key) -> jax.Array:
    """Returns a random action, a legal one where the observation has an action mask."""
    if spec.num_actions:
        sizes = spec.num_actions if isinstance(spec.num_actions, tuple) else (spec.num_actions,)
        noise = jax.random.uniform(key, (num_logits(spec.num_actions),))
        if spec.action_mask:
            noise = jnp.where(field(obs, spec.action_mask), noise, -1.0)
        actions = [x.argmax() for x in jnp.split(noise, np.cumsum(sizes)[:-1])]
        return jnp.stack(actions) if isinstance(spec.num_actions, tuple) else actions[0]
    low, high = (
        jnp.broadcast_to(jnp.float32(bound), spec.action_shape)
        for bound in (spec.action_low, spec.action_high)
    )
    return jax.random.uniform(key, low.shape, minval=low, maxval=high)


def _check_values(env: Env) -> None:
    """Checks over random steps that values are finite and in range, and that episodes reset."""
    spec = env.spec

    def simulate(key):
        reset_key, key = jax.random.split(key)
        states, starts = jax.vmap(env.reset)(jax.random.split(reset_key, NUM_RESETS))
        first = jax.tree.map(lambda x: x[0], (states, starts))

        def random_step(carry, key):
            state, obs = carry
            action_key, step_key = jax.random.split(key)
            noise = sample_one(env.sample_noise, step_key)
            state, step = env.step(state, _random_action(spec, obs, action_key), noise)
            return (state, step.obs), step._replace(info={})

        steps = jax.lax.scan(random_step, first, jax.random.split(key, NUM_STEPS))[1]
        return starts, steps

    # the program runs once, so it is compiled without optimization, in half the time
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    starts, steps = jax.device_get(jax.jit(simulate, compiler_options=options)(jax.random.key(0)))
    _check_finite(spec, "obs", starts, "`reset`")
    _check_finite(spec, "next_obs", steps.next_obs, "{} random steps")
    _check_finite(spec, "obs", steps.obs, "{} random steps")
    _check_finite(spec, "reward", steps.reward, "{} random steps")
    if spec.num_states:
        each = (state_index(spec, obs) for obs in (starts, steps.obs, steps.next_obs))
        indices = np.concatenate([np.ravel(x) for x in each])
        out_of_range = indices[(indices < 0) | (indices >= spec.num_states)]
        if out_of_range.size:
            _fail(
                spec, f"`obs` is {out_of_range[0]}, but `num_states` is {spec.num_states}",
                f"return indices from 0 to {spec.num_states - 1}",
            )  # fmt: skip
    _check_legal(spec, starts, "`reset`")
    _check_legal(spec, steps.obs, "{} random steps")
    _check_resets(spec, steps, starts)


def _check_legal(spec: EnvSpec, obs: PyTree, when: str) -> None:
    """Checks that each observation to act on has a legal action; for each of several actions."""
    rest, mask = split_mask(spec, obs)
    if mask is None:
        return
    sizes = spec.num_actions if isinstance(spec.num_actions, tuple) else (spec.num_actions,)
    parts = np.split(np.asarray(mask), np.cumsum(sizes)[:-1], axis=-1)
    stuck = np.any([~part.any(axis=-1) for part in parts], axis=0)
    if stuck.any():
        row = int(stuck.argmax())
        values = jax.tree.map(lambda x: np.asarray(x[row]), rest)
        _fail(
            spec, f"the observation after {when.format(row + 1)} has no legal action "
            f"({_shorten(values)})", "end the episode, `terminated`, where no action is legal",
        )  # fmt: skip


def _check_finite(spec: EnvSpec, name: str, tree: PyTree, when: str) -> None:
    for leaf in jax.tree.leaves(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        bad = ~np.isfinite(leaf.reshape(len(leaf), -1))
        if bad.any():
            row = int(bad.any(axis=1).argmax())
            value = leaf.reshape(len(leaf), -1)[row][bad[row]][0]
            _fail(
                spec, f"`{name}` contains {value} after {when.format(row + 1)}",
                "look for a division by zero, a root or a logarithm",
            )  # fmt: skip


def _check_resets(spec: EnvSpec, steps: Step, starts: PyTree) -> None:
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
        _fail(
            spec, f"`obs` equals `next_obs` where an episode ends (after {ends[0] + 1} random "
            "steps)", "return the last observation of the episode as `next_obs` and the first of "
            "the next episode as `obs`; `rljax.envs.auto_reset` does so for a `step` that does "
            "not reset",
        )  # fmt: skip


def _flatten_rows(tree: PyTree) -> np.ndarray:
    """Concatenates the leaves `[N, ...]` of a tree to one array `[N, size]`."""
    return np.concatenate([x.reshape(len(x), -1) for x in jax.tree.leaves(tree)], axis=1)
