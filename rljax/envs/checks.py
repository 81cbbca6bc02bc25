"""Whether an environment is well formed: what is wrong in one sentence, before anything compiles.

Without these, a wrong shape is an error of `scan` a hundred lines long, and a NaN or an
environment that never resets itself is a run that learns nothing.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import Env, EnvSpec, Key, PyTree, Step, sample_one

NUM_STEPS = 128  # random steps that `check_env` takes
NUM_RESETS = 16  # fresh observations that it compares with


def check_env(env: Env) -> None:
    """Checks an environment: its shapes, then its values over a few random steps.

    Args:
      env: one environment, not a batch, which resets itself.

    Raises:
      ValueError: in one sentence, what is wrong, its value and what to do about it.
    """
    check_shapes(env)
    _check_values(env)


def check_shapes(env: Env) -> None:
    """The part of `check_env` that computes nothing; `env` need not reset itself.

    Raises:
      ValueError: a spec that contradicts itself, a function that raises, an observation, a reward
        or a flag of the wrong shape or dtype, a state that changes its structure.
    """
    spec = env.spec
    _check_spec(spec)
    key = jax.eval_shape(lambda: jax.random.key(0))
    told = _traced(spec, "reset", "a key", env.reset, key)
    if not (isinstance(told, tuple) and len(told) == 2):
        _wrong(spec, f"`reset` returns {_kind(told)}", "return a pair, `state, obs`")
    state, obs = told
    _check_obs(spec, obs)
    action = _action_shape(spec)
    argument = f"an action {_shown(action)}"
    noise = _check_noise(env, key)
    told = _traced(spec, "step", argument, env.step, state, action, noise)
    if not (isinstance(told, tuple) and len(told) == 2 and isinstance(told[1], Step)):
        _wrong(spec, f"`step` returns {_kind(told)}", "return a pair, `state, rljax.Step(...)`")
    next_state, step = told
    _check_same(spec, "obs", obs, step.obs)
    _check_same(spec, "next_obs", obs, step.next_obs)
    _check_same(spec, "state", state, next_state)
    _check_scalar(spec, "reward", step.reward, jnp.float32)
    _check_scalar(spec, "terminated", step.terminated, jnp.bool)
    _check_scalar(spec, "truncated", step.truncated, jnp.bool)


def _wrong(spec: EnvSpec, what: str, cure: str) -> NoReturn:
    raise ValueError(f"{spec.env_id}: {what}; {cure}.")


def _check_spec(spec: EnvSpec) -> None:
    if spec.num_envs != 1:
        _wrong(spec, f"`num_envs` is {spec.num_envs}", "give one, copies are made later")
    discrete, shape = spec.num_actions, tuple(spec.action_shape)
    if discrete < 1 and not shape:
        _wrong(
            spec, f"`num_actions` is {discrete} and `action_shape` is {shape}",
            "set `num_actions` for discrete actions, `action_shape=(1,)` or so for others",
        )  # fmt: skip
    if discrete and shape:
        _wrong(
            spec, f"`num_actions` is {discrete} and `action_shape` is {shape}",
            "set one of them, actions are discrete or continuous",
        )  # fmt: skip
    if spec.num_states and spec.obs_shape:
        _wrong(
            spec, f"`num_states` is {spec.num_states} and `obs_shape` is {tuple(spec.obs_shape)}",
            "an observation that is the index of a state has `obs_shape=()`",
        )  # fmt: skip
    if not shape:
        return
    bounds = []
    for name in ("action_low", "action_high"):
        try:
            bound = np.asarray(getattr(spec, name), np.float64)
            bounds.append(np.broadcast_to(bound, shape))
        except (ValueError, TypeError):
            _wrong(
                spec, f"`{name}` is {getattr(spec, name)!r}",
                f"give a number, or an array that fits `action_shape` = {shape}",
            )  # fmt: skip
        if not np.isfinite(bounds[-1]).all():
            _wrong(spec, f"`{name}` is {bound.tolist()}", "clip the actions to a finite box")
    if not (bounds[0] < bounds[1]).all():
        low, high = (np.asarray(bound).tolist() for bound in (spec.action_low, spec.action_high))
        _wrong(spec, f"`action_low` is {low} and `action_high` is {high}", "low must be below high")


def _action_shape(spec: EnvSpec) -> jax.ShapeDtypeStruct:
    dtype = jnp.int32 if spec.num_actions else jnp.float32
    return jax.ShapeDtypeStruct(() if spec.num_actions else tuple(spec.action_shape), dtype)


def _traced(spec: EnvSpec, name: str, argument: str, function: Callable, *args: Any) -> PyTree:
    """What a function of the environment returns, in shapes; an error of it is named as such."""
    try:
        return jax.eval_shape(function, *args)
    except Exception as error:
        reason = " ".join(str(error).split("\n\n")[0].split()) or "no message"
        raise ValueError(
            f"{spec.env_id}: `{name}` raises {type(error).__name__} under `jit`, for {argument}: "
            f"{reason.rstrip('.')}."
        ) from error


def _check_obs(spec: EnvSpec, obs: PyTree) -> None:
    leaves = jax.tree.leaves(obs)
    if not leaves:
        _wrong(spec, "`obs` of `reset` holds no array", "observe one array")
    if obs is not leaves[0]:  # several arrays: the agent that was made for them knows their shapes
        return
    if obs.shape != tuple(spec.obs_shape):
        _wrong(
            spec, f"`obs` of `reset` has shape {obs.shape}, the spec says `obs_shape` = "
            f"{tuple(spec.obs_shape)}", "make them equal",
        )  # fmt: skip
    if spec.num_states and not jnp.issubdtype(obs.dtype, jnp.integer):
        _wrong(
            spec, f"`num_states` is {spec.num_states}, but `obs` is {obs.dtype}",
            "observe the index of the state, an int32",
        )  # fmt: skip


def _check_noise(env: Env, key: Any) -> PyTree:
    """Checks the shape of `sample_noise`; returns one row of it, the argument of `step`."""
    noise = _traced(
        env.spec, "sample_noise", "a key and 2 steps", lambda key: env.sample_noise(key, 2), key
    )
    for leaf in jax.tree.leaves(noise):
        if leaf.shape[:1] != (2,):
            _wrong(
                env.spec, f"`sample_noise(key, 2)` returns a {_shown(leaf)}",
                "the first axis must be the steps, 2",
            )  # fmt: skip
    row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), noise)
    return row


def _check_same(spec: EnvSpec, name: str, before: PyTree, after: PyTree) -> None:
    """A part of what `step` returns must be like what `reset` returned: a loop carries it."""
    old, new = jax.tree.structure(before), jax.tree.structure(after)
    if old != new:
        what = f"`{name}` is {_short(old)} after `reset` and {_short(new)} after `step`"
        _wrong(spec, what, "the two must be built alike")
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, x), y in pairs:
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            where = f"`{name}{jax.tree_util.keystr(path)}`"
            _wrong(
                spec, f"{where} is {_shown(x)} after `reset` and {_shown(y)} after `step`",
                "give both the same shape and dtype",
            )  # fmt: skip


def _check_scalar(spec: EnvSpec, name: str, x: Any, dtype: Any) -> None:
    leaf = jax.tree.leaves(x)
    if len(leaf) != 1 or leaf[0] is not x:
        _wrong(spec, f"`{name}` is {_kind(x)}", f"return one {jnp.dtype(dtype).name} scalar")
    if x.shape != () or x.dtype != dtype:
        name_of = "jnp.bool" if dtype == jnp.bool else f"jnp.{jnp.dtype(dtype).name}"
        cure = f"return a scalar, `x.astype({name_of})`" if x.shape == () else "return a scalar"
        _wrong(spec, f"`{name}` is {_shown(x)}", cure)


def _shown(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"


def _kind(x: Any) -> str:
    return f"a {type(x).__name__}" + (f" of {len(x)}" if isinstance(x, (tuple, list, dict)) else "")


def _short(structure: Any) -> str:
    text = str(structure).removeprefix("PyTreeDef(").removesuffix(")")
    return text if len(text) <= 60 else text[:57] + "..."


def _random_action(spec: EnvSpec, key: Key) -> jax.Array:
    if spec.num_actions:
        return jax.random.randint(key, (), 0, spec.num_actions)
    low, high = (
        jnp.broadcast_to(jnp.float32(bound), spec.action_shape)
        for bound in (spec.action_low, spec.action_high)
    )
    return jax.random.uniform(key, low.shape, minval=low, maxval=high)


def _check_values(env: Env) -> None:
    """Takes random steps: are the numbers finite, in range, and does it reset itself?"""
    spec = env.spec

    def play(key):
        reset_key, key = jax.random.split(key)
        states, starts = jax.vmap(env.reset)(jax.random.split(reset_key, NUM_RESETS))
        state = jax.tree.map(lambda x: x[0], states)

        def once(state, key):
            action_key, step_key = jax.random.split(key)
            noise = sample_one(env.sample_noise, step_key)
            state, step = env.step(state, _random_action(spec, action_key), noise)
            return state, step._replace(info={})

        steps = jax.lax.scan(once, state, jax.random.split(key, NUM_STEPS))[1]
        return starts, steps

    # it runs once, so what counts is the compiler's time: half of it without optimisation
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    played = jax.jit(play, compiler_options=options)(jax.random.key(0))
    starts, steps = jax.device_get(played)
    _check_finite(spec, "obs", starts, "`reset`")
    _check_finite(spec, "next_obs", steps.next_obs, "{} random steps")
    _check_finite(spec, "obs", steps.obs, "{} random steps")
    _check_finite(spec, "reward", steps.reward, "{} random steps")
    if spec.num_states:
        seen = np.concatenate([np.ravel(starts), np.ravel(steps.obs), np.ravel(steps.next_obs)])
        wrong = seen[(seen < 0) | (seen >= spec.num_states)]
        if wrong.size:
            _wrong(
                spec, f"`obs` is {wrong[0]}, but `num_states` is {spec.num_states}",
                "observe indices from 0 to num_states - 1",
            )  # fmt: skip
    _check_resets(spec, steps, starts)


def _check_finite(spec: EnvSpec, name: str, tree: PyTree, when: str) -> None:
    for leaf in jax.tree.leaves(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        bad = ~np.isfinite(leaf.reshape(len(leaf), -1))
        if bad.any():
            row = int(bad.any(axis=1).argmax())
            value = leaf.reshape(len(leaf), -1)[row][bad[row]][0]
            _wrong(
                spec, f"`{name}` holds {value} after {when.format(row + 1)}",
                "find the division, root or logarithm that makes it",
            )  # fmt: skip


def _check_resets(spec: EnvSpec, steps: Step, starts: PyTree) -> None:
    """At the end of an episode `obs` is a fresh one, and not `next_obs`.

    Equal ones are an error only if episodes do not begin in that observation: those of a bandit,
    or of a walk that ends where it began, are equal and right.
    """
    ends = np.flatnonzero(steps.terminated | steps.truncated)
    if not ends.size:
        return
    shown, reached, fresh = map(_rows, (steps.obs, steps.next_obs, starts))
    shown, reached = shown[ends], reached[ends]
    known = (reached[:, None] == fresh[None]).all(axis=-1)
    if (shown == reached).all() and not known.any():
        _wrong(
            spec, f"where its episodes end (after {ends[0] + 1} random steps) `obs` is `next_obs`",
            "`next_obs` must be the last of the episode and `obs` the first of a new one: "
            "`rljax.envs.auto_reset` makes it so of a `step` that does not reset",
        )  # fmt: skip


def _rows(tree: PyTree) -> np.ndarray:
    """The leaves of a tree of `[N, ...]` side by side: `[N, everything]`."""
    return np.concatenate([x.reshape(len(x), -1) for x in jax.tree.leaves(tree)], axis=1)
