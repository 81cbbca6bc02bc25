"""Checks of the spec, the shapes and the dtypes of an environment.

Errors name the environment, the fault and the cure. A wrong shape would otherwise be reported by
`jax.lax.scan` in a hundred lines.
"""

import re
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from rljax.ops.memory import device_bytes, readable, tree_bytes
from rljax.ops.observations import action_struct, num_logits, obs_structs, split_mask
from rljax.types import Env, EnvSpec, PyTree, Step

NUM_TRIALS = 256  # observations that have to fit into memory
# errors of JAX where a function asks for the value of an array that is not known yet
NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
_LIBRARIES = re.compile(r"[\\/](jax|rljax|numpy)[\\/]")


class EnvFault(ValueError):
    """An environment is not well-formed."""


def check_shapes(env: Env) -> None:
    """Checks the spec, the shapes and the dtypes of an environment, without running it.

    Args:
      env: a single environment; it need not reset itself.

    Raises:
      EnvFault: a contradictory spec; a function that raises an error; an observation, reward or
        flag of the wrong shape or dtype; or a state that changes its structure.
    """
    spec = env.spec
    if not isinstance(spec, EnvSpec):
        raise EnvFault(f"the `spec` of the environment is {spec!r}, but it must be an `EnvSpec`.")
    _check_sizes(spec)
    _check_spec(spec)
    key = jax.eval_shape(lambda: jax.random.key(0))
    output = _trace(spec, "reset", "a key", env.reset, key)
    if not (isinstance(output, tuple) and len(output) == 2):
        fail(spec, f"`reset` returns {_kind(output)}", "return a pair, `state, obs`")
    state, obs = output
    _check_obs(spec, obs)
    action = action_struct(spec)
    noise = _check_noise(env, key)
    noise_text = ", ".join(map(_format, jax.tree.leaves(noise)))
    argument = f"an action {_format(action)} and noise {noise_text}"
    output = _trace(spec, "step", argument, env.step, state, action, noise)
    if not (isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], Step)):
        fail(spec, f"`step` returns {_kind(output)}", "return a pair, `state, rljax.Step(...)`")
    next_state, step = output
    _check_same(spec, "obs", obs, step.obs)
    _check_same(spec, "next_obs", obs, step.next_obs)
    _check_same(spec, "state", state, next_state)
    _check_scalar(spec, "reward", step.reward, jnp.float32)
    _check_scalar(spec, "terminated", step.terminated, jnp.bool)
    _check_scalar(spec, "truncated", step.truncated, jnp.bool)


def fail(spec: EnvSpec, fault: str, cure: str) -> NoReturn:
    """Raises an `EnvFault` that names the environment, the fault and the cure."""
    raise EnvFault(f"{spec.env_id}: {fault}; {cure}.")


def _check_sizes(spec: EnvSpec) -> None:
    """Checks that the numbers and shapes of a spec are integers of the right range."""
    for name, low in (("num_actions", 0), ("num_states", 0), ("num_envs", 1)):
        value = getattr(spec, name)
        values = value if isinstance(value, tuple) else (value,)
        if not all(_is_integer(x, low) for x in values):
            fail(spec, f"`{name}` is {value!r}", f"give an integer of at least {low}")
    if not all(_is_integer(x, 1) for x in spec.action_shape):
        fail(spec, f"`action_shape` is {spec.action_shape!r}", "give integers of at least 1")
    try:
        shapes = [x.shape for x in jax.tree.leaves(obs_structs(spec))]
        is_valid = all(_is_integer(size, 1) for shape in shapes for size in shape)
    except (TypeError, ValueError):
        is_valid = False
    if not is_valid:
        cure = "give a shape of integers of at least 1, or a tree of such shapes"
        fail(spec, f"`obs_shape` is {spec.obs_shape!r}", cure)
    needed, limit = NUM_TRIALS * tree_bytes(obs_structs(spec)), device_bytes()
    if limit is not None and needed > limit:
        fail(
            spec, f"{NUM_TRIALS} observations of `obs_shape` {spec.obs_shape} need "
            f"{readable(needed)} of memory and this machine has {readable(limit)}",
            "make the observations smaller",
        )  # fmt: skip


def _is_integer(value: Any, low: int) -> bool:
    is_number = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return is_number and bool(value >= low)


def _check_spec(spec: EnvSpec) -> None:
    if spec.num_envs != 1:
        fault = f"`num_envs` is {spec.num_envs}"
        fail(spec, fault, "pass a single environment, `batched` makes copies")
    num_actions, shape = spec.num_actions, tuple(spec.action_shape)
    actions = f"`num_actions` is {num_actions} and `action_shape` is {shape}"
    if isinstance(num_actions, tuple) and (not num_actions or min(num_actions) < 1):
        fail(spec, actions, "give the number of choices of each discrete action, such as (3, 5)")
    if not isinstance(num_actions, tuple) and num_actions < 1 and not shape:
        cure = "set `num_actions` for discrete actions, or `action_shape` for continuous ones"
        fail(spec, actions, cure)
    if num_actions and shape:
        fail(spec, actions, "set only one of them: actions are either discrete or continuous")
    obs, mask = split_mask(spec, obs_structs(spec))
    if mask is not None and mask.shape != (num_logits(num_actions),):
        fail(
            spec, f"the field `{spec.action_mask}` of `obs_shape` is {mask.shape}, and {actions}",
            f"make it ({num_logits(num_actions)},), one entry for each discrete action",
        )  # fmt: skip
    if spec.num_states and [x.shape for x in jax.tree.leaves(obs)] != [()]:
        fail(
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
            fail(
                spec, f"`{name}` is {getattr(spec, name)!r}",
                f"set a number, or an array of `action_shape` = {shape}",
            )  # fmt: skip
        if not np.isfinite(bounds[-1]).all():
            cure = "set finite bounds and clip the actions to them"
            fail(spec, f"`{name}` is {bound.tolist()}", cure)
    if not (bounds[0] < bounds[1]).all():
        low, high = (np.asarray(bound).tolist() for bound in (spec.action_low, spec.action_high))
        fault = f"`action_low` is {low} and `action_high` is {high}"
        fail(spec, fault, "set each lower bound below its upper bound")


def _trace(spec: EnvSpec, name: str, argument: str, function: Callable, *args: Any) -> PyTree:
    """Returns the shapes of a function's outputs; an error in the function names it."""
    try:
        return jax.eval_shape(function, *args)
    except NEEDS_VALUES as error:
        raise EnvFault(
            f"{spec.env_id}: `{name}` needs the value of an array while JAX compiles it"
            f"{_place_of(error)}: write it with `jax.numpy` in place of NumPy, and `jnp.where` or "
            "`jax.lax.cond` in place of `if`; or give it as a gymnasium environment, which runs on "
            "the host."
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split("\n\n")[0].split()) or "no message"
        raise EnvFault(
            f"{spec.env_id}: `{name}` raises {type(error).__name__} under `jit`, for {argument}: "
            f"{reason.rstrip('.')}."
        ) from error


def _place_of(error: Exception) -> str:
    """Returns the file and line of the user that raised an error of JAX, or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _LIBRARIES.search(frame.filename)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _check_obs(spec: EnvSpec, obs: PyTree) -> None:
    """Checks that an observation has the structure, the shapes and the dtypes of the spec."""
    if not jax.tree.leaves(obs):
        fail(spec, "`obs` of `reset` contains no array", "return an array, or a tree of arrays")
    wanted = obs_structs(spec)
    structure = jax.tree.structure(obs)
    if structure != jax.tree.structure(wanted):
        fail(
            spec, f"`obs` of `reset` is {shorten(structure)}, but `obs_shape` is "
            f"{spec.obs_shape}", "set `obs_shape` to the same tree, with the shape of each array",
        )  # fmt: skip
    pairs = zip(jax.tree_util.tree_leaves_with_path(obs), jax.tree.leaves(wanted), strict=True)
    for (path, given), leaf in pairs:
        if given.shape != leaf.shape:
            name = f"obs{jax.tree_util.keystr(path)}"
            fault = f"`{name}` of `reset` has shape {given.shape}, but `obs_shape` is {leaf.shape}"
            fail(spec, fault, "make them equal")
    obs, mask = split_mask(spec, obs)
    dtype = jax.tree.leaves(obs)[0].dtype
    if spec.num_states and not jnp.issubdtype(dtype, jnp.integer):
        fail(
            spec, f"`num_states` is {spec.num_states}, but `obs` is {dtype}",
            "return the index of the state, an int32",
        )  # fmt: skip
    if mask is not None and mask.dtype != bool:
        fail(
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
            fail(
                env.spec, f"`sample_noise(key, 2)` returns a {_format(leaf)}",
                "return one row for each of the 2 steps",
            )  # fmt: skip
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), noise)


def _check_same(spec: EnvSpec, name: str, before: PyTree, after: PyTree) -> None:
    """Checks that `step` returns the same structure, shapes and dtypes as `reset` did."""
    old, new = jax.tree.structure(before), jax.tree.structure(after)
    if old != new:
        fault = f"`{name}` is {shorten(old)} after `reset` and {shorten(new)} after `step`"
        fail(spec, fault, "return the same structure from both")
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, x), y in pairs:
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            where = f"`{name}{jax.tree_util.keystr(path)}`"
            fail(
                spec, f"{where} is {_format(x)} after `reset` and {_format(y)} after `step`",
                "return the same shape and dtype from both",
            )  # fmt: skip


def _check_scalar(spec: EnvSpec, name: str, x: Any, dtype: Any) -> None:
    leaf = jax.tree.leaves(x)
    if len(leaf) != 1 or leaf[0] is not x:
        fail(spec, f"`{name}` is {_kind(x)}", f"return one {jnp.dtype(dtype).name} scalar")
    if x.shape != () or x.dtype != dtype:
        name_of = "jnp.bool" if dtype == jnp.bool else f"jnp.{jnp.dtype(dtype).name}"
        cure = f"return a scalar, `x.astype({name_of})`" if x.shape == () else "return a scalar"
        fail(spec, f"`{name}` is {_format(x)}", cure)


def _format(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"


def _kind(x: Any) -> str:
    """Returns the type of a value in words: "a tuple of 3"."""
    return f"a {type(x).__name__}" + (f" of {len(x)}" if isinstance(x, (tuple, list, dict)) else "")


def shorten(value: Any) -> str:
    """Returns a value as text of one line, cut to 60 characters."""
    text = " ".join(str(value).removeprefix("PyTreeDef(").removesuffix(")").split())
    return text if len(text) <= 60 else text[:57] + "..."
