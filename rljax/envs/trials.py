"""Random steps of a batch of copies of an environment: the measurements of `rljax.check_env`."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.envs import host
from rljax.envs.value_checks import random_action
from rljax.envs.wrappers import batched
from rljax.ops.observations import has_no_legal_action, obs_structs, split_mask
from rljax.types import Array, Env, EnvSpec, Key, PyTree, Step, is_key

NUM_COPIES = 16
AT_BOUNDS = 4  # the first copies of an environment with continuous actions act at their bounds
NUM_STEPS = 128  # of one call of the compiled program
MIN_STEPS = 512
MAX_CALLS = 100  # of the program, if no episode ends
MAX_SECONDS = 20.0  # unless that is reached earlier, episodes reach the time limit twice


class Trial(NamedTuple):
    """What random steps showed, for T steps and B copies.

    Attributes:
      starts: first observations `[B, ...]`.
      reward, terminated, truncated: `[T, B]`.
      problems: where a problem occurred, `[T, B]` by name; see `_problems`.
      ranges: smallest and largest value of each array of an observation, by its name.
      is_repeatable: the same key and state gave the same steps again.
      seconds_to_compile: of the program of `NUM_STEPS` steps.
      steps_per_second: steps of all copies together.
      bytes_per_copy: size of the state of one copy.
    """

    starts: PyTree
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    problems: dict[str, np.ndarray]
    ranges: dict[str, tuple[float, float]]
    is_repeatable: bool
    seconds_to_compile: float
    steps_per_second: float
    bytes_per_copy: int


def run_trial(env: Env, num_copies: int = NUM_COPIES) -> Trial:
    """Takes random steps until the time limit is reached twice, or for `MAX_SECONDS`.

    Without a time limit it takes `MIN_STEPS`, or more until an episode ends.

    Args:
      env: a single environment that resets itself.
      num_copies: B.
    """
    spec, batch = env.spec, batched(env, num_copies)

    def steps(state, obs, key):
        def one_step(carry, key_noise):
            state, obs = carry
            key, noise = key_noise
            state, step = batch.step(state, random_actions(spec, obs, key), noise)
            return (state, step.obs), _measure(spec, step)

        action_key, noise_key = jax.random.split(key)
        noise = batch.sample_noise(noise_key, NUM_STEPS)
        keys = jax.random.split(action_key, NUM_STEPS)
        return jax.lax.scan(one_step, (state, obs), (keys, noise))

    key = jax.random.key(0)
    state, starts = jax.block_until_ready(jax.jit(batch.reset)(key))
    obs = starts
    before = time.perf_counter()
    program = jax.jit(steps).lower(state, obs, key).compile()
    seconds_to_compile = time.perf_counter() - before
    is_repeatable = env.batch is not None or same(
        program(state, obs, key), program(state, obs, key)
    )
    wanted = -(-max(MIN_STEPS, 2 * spec.max_episode_steps + 1) // NUM_STEPS)
    measured, start, has_ended = [], time.perf_counter(), False
    while len(measured) < (wanted if has_ended else max(wanted, MAX_CALLS)):
        call_key = jax.random.fold_in(key, len(measured))
        (state, obs), found = program(state, obs, call_key)
        measured.append(jax.device_get(found))
        _, terminated, truncated, *_ = measured[-1]
        has_ended |= bool((terminated | truncated).any())
        if time.perf_counter() - start > MAX_SECONDS:
            break
    seconds = time.perf_counter() - start
    size = sum(x.nbytes for x in jax.tree.leaves(state) if not is_key(x))
    host.close(state)
    all_steps = jax.tree.map(lambda *x: np.concatenate(x), *measured)
    reward, terminated, truncated, problems, low, high = all_steps
    ranges = {name: (float(low[name].min()), float(high[name].max())) for name in low}
    return Trial(
        jax.device_get(starts), reward, terminated, truncated, problems, ranges, is_repeatable,
        seconds_to_compile, reward.size / seconds, size // num_copies,
    )  # fmt: skip


def random_actions(spec: EnvSpec, obs: PyTree, key: Key) -> Array:
    """Returns random legal actions `[B, ...]`; the first copies act at the bounds.

    Of continuous actions, copy 0 takes the lower bounds, copy 1 the upper bounds, and the others
    of the first `AT_BOUNDS` one of the two in each component.
    """
    num_copies = len(jax.tree.leaves(obs)[0])
    keys = jax.random.split(key, num_copies)
    actions = jax.vmap(lambda obs, key: random_action(spec, obs, key))(obs, keys)
    if spec.num_actions:
        return actions
    axes = (1,) * len(spec.action_shape)
    copies = jnp.arange(num_copies).reshape(-1, *axes)
    low, high = (
        jnp.broadcast_to(jnp.float32(x), spec.action_shape)[None]
        for x in (spec.action_low, spec.action_high)
    )
    is_low = (copies == 0) | ((copies != 1) & (actions < (low + high) / 2))
    return jnp.where(copies < AT_BOUNDS, jnp.where(is_low, low, high), actions)


def named_leaves(tree: PyTree, name: str = "obs") -> dict[str, Any]:
    """Returns the arrays of a tree by name, such as `obs.board` or `obs['position']`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"{name}{jax.tree_util.keystr(path)}": x for path, x in leaves}


def same(x: PyTree, y: PyTree) -> bool:
    """Whether two trees hold the same numbers; NaN equals NaN."""

    def equal(x, y):
        x, y = (np.asarray(jax.random.key_data(z) if is_key(z) else z) for z in (x, y))
        return np.array_equal(x, y, equal_nan=np.issubdtype(x.dtype, np.inexact))

    return all(jax.tree.leaves(jax.tree.map(equal, x, y)))


def _measure(spec: EnvSpec, step: Step) -> tuple:
    leaves = named_leaves(step.next_obs)
    low = {name: x.min().astype(jnp.float32) for name, x in leaves.items()}
    high = {name: x.max().astype(jnp.float32) for name, x in leaves.items()}
    return step.reward, step.terminated, step.truncated, _problems(spec, step), low, high


def _problems(spec: EnvSpec, step: Step) -> dict[str, Array]:
    """Returns where a problem occurs, `[B]` by name: "not finite: obs", "no legal action", ..."""

    def per_copy(x):
        return x.reshape(len(x), -1).any(axis=1)

    problems = {}
    everything = named_leaves(step.obs) | named_leaves(step.next_obs, "next_obs")
    for name, x in (everything | {"reward": step.reward}).items():
        if jnp.issubdtype(x.dtype, jnp.floating):
            problems[f"not finite: {name}"] = per_copy(~jnp.isfinite(x))
    dtypes = {name: x.dtype for name, x in named_leaves(obs_structs(spec)).items()}
    for name, x in named_leaves(step.next_obs).items():
        if x.dtype != dtypes[name]:
            stored = x.astype(dtypes[name]).astype(x.dtype)
            problems[f"not stored: {name}"] = per_copy((stored != x) & (x == x))
    mask = split_mask(spec, step.obs)[1]
    if mask is not None:
        problems["no legal action"] = has_no_legal_action(spec, mask)
    done = step.terminated | step.truncated
    pairs = zip(jax.tree.leaves(step.obs), jax.tree.leaves(step.next_obs), strict=True)
    differs = [per_copy((x != y) & (x == x) & (y == y)) for x, y in pairs]  # NaN is reported above
    problems["obs changed"] = jnp.stack(differs).any(axis=0) & ~done
    problems["both flags"] = step.terminated & step.truncated
    return problems
