"""A report on an environment: `rljax.check_env` and `rljax check-env`."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.envs.checks import EnvFault, check_shapes
from rljax.envs.lengths import length_facts, length_faults, terminates_at_limit
from rljax.envs.trials import AT_BOUNDS, NUM_COPIES, Trial, named_leaves, run_trial
from rljax.envs.value_checks import value_faults
from rljax.ops.observations import action_struct, choices, obs_structs
from rljax.ops.precision import in_32_bits
from rljax.types import Env, EnvSpec

LATER = 10  # steps by which a time limit is moved, to see whether the ends of episodes move
LARGE = 100  # numbers above this are large for a network
IMPURE = (
    "`reset` or `step` is another function each time that it is traced; take random numbers from "
    "the key, `jax.random`, instead of from NumPy or Python, and keep no other state."
)
PROBLEMS = {  # sentences on the problems of `trials`
    "not finite": (
        "`{leaf}` is NaN or infinite after {after}; look for a division by zero, a root or a "
        "logarithm."
    ),
    "not stored": (
        "`{leaf}` after {after} cannot be stored as the `obs_dtype` of its spec; set a dtype that "
        "holds all of its values."
    ),
    "no legal action": (
        "The observation after {after} has no legal action; end the episode, `terminated`, where "
        "no action is legal."
    ),
    "obs changed": (
        "`obs` differs from `next_obs` after {after}, where no episode ends; only the end of an "
        "episode may change it, to the first observation of the next one."
    ),
    "both flags": (
        "A step is both `terminated` and `truncated`, after {after}; a step that terminates the "
        "episode is not also truncated."
    ),
}


class EnvReport(NamedTuple):
    """What `check_env` found, in sentences. `str(report)` is the whole report.

    Attributes:
      env_id: name of the environment.
      faults: what would spoil training.
      warnings: what may be wrong, or slow, or hard to learn.
      facts: measurements.
    """

    env_id: str
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def __str__(self) -> str:
        lines = [
            f"{self.env_id}: {_count(self.faults, 'fault')}, {_count(self.warnings, 'warning')}"
        ]
        for title in ("faults", "warnings", "facts"):
            sentences = getattr(self, title)
            lines += ["", f"{title}:", *(f"- {x}" for x in sentences)] if sentences else []
        return "\n".join(lines)


def _count(sentences: tuple[str, ...], name: str) -> str:
    return f"{len(sentences) or 'no'} {name}{'' if len(sentences) == 1 else 's'}"


@in_32_bits
def check_env(env: Any, **params: Any) -> EnvReport:
    """Checks an environment by running it with random actions, and measures its speed.

    Args:
      env: as for `rljax.make`: an id, an environment of one of the suites, or an `Env`.
      params: parameters of the environment by name, and `max_episode_steps`.

    Returns:
      A report: its faults, warnings and facts are sentences, and `ok` tells whether there is no
      fault. It covers shapes, dtypes, NaN, legal actions, actions at their bounds, resets, the
      time limit, repeatability, ranges of observations and rewards, and steps per second.

    Raises:
      ValueError: an unknown id or parameter, a suite that is not installed, or an object that is
        not an environment.

    Example:
      >>> report = check_env("rljax/Treasure")
      >>> report.ok, report.faults
      (True, ())
    """
    from rljax import envs

    try:
        made = envs.make(env, **params)
        check_shapes(made)
    except EnvFault as fault:
        env_id, _, sentence = str(fault).partition(": ")
        return EnvReport(env_id, (_sentence(sentence),))
    prefix = f"{made.spec.env_id}: "
    faults = [_sentence(str(fault).removeprefix(prefix)) for fault in value_faults(made)]
    if made.batch is None and not _is_pure(made):
        faults.append(IMPURE)
    trial = run_trial(made)
    faults += _step_faults(made.spec, trial, faults)
    has_own_end = terminates_at_limit(made.spec, trial) and _ends_without_limit(env, made, params)
    limit_faults, warnings = length_faults(made.spec, trial, has_own_end)
    warnings += _type_warnings(made) + _range_warnings(made.spec, trial)
    facts = _obs_facts(made.spec, trial) + length_facts(made.spec, trial) + _reward_facts(trial)
    facts += [
        f"The state of one copy has {trial.bytes_per_copy:,} bytes.",
        f"{NUM_COPIES} copies take {trial.steps_per_second:,.0f} steps a second on "
        f"{jax.devices()[0].device_kind}, after {trial.seconds_to_compile:.1f} seconds of "
        "compilation.",
    ]
    return EnvReport(made.spec.env_id, tuple(faults + limit_faults), tuple(warnings), tuple(facts))


def _ends_without_limit(env: Any, made: Env, params: dict[str, Any]) -> bool:
    """Whether episodes that terminate at the time limit do so too if the limit is later.

    The limit of the user's own `Env` cannot be changed, so the answer is then False.
    """
    from rljax import envs

    if isinstance(env, Env):
        return False
    limit = made.spec.max_episode_steps
    later = envs.make(env, **params | {"max_episode_steps": limit + LATER})
    trial = run_trial(later)
    return terminates_at_limit(later.spec._replace(max_episode_steps=limit), trial)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _is_pure(env: Env) -> bool:
    """Whether `reset` and `step` are traced alike twice, as without NumPy's random numbers."""

    def trace():
        key = jax.random.key(0)
        reset = jax.make_jaxpr(lambda key: env.reset(key))(key)  # a new function is traced anew
        state, _ = jax.eval_shape(env.reset, key)
        noise = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], env.sample_noise(key, 1)))
        step = jax.make_jaxpr(lambda *x: env.step(*x))(state, action_struct(env.spec), noise)
        text = re.sub(r"0x[0-9a-f]+", "", f"{reset} {step}")
        return text, [np.asarray(x) for x in (*reset.consts, *step.consts) if _is_plain(x)]

    (text, consts), (again, consts_again) = trace(), trace()
    return text == again and all(map(np.array_equal, consts, consts_again))


def _is_plain(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray) and not jnp.issubdtype(
        x.dtype, jax.dtypes.extended
    )


def _step_faults(spec: EnvSpec, trial: Trial, known: list[str]) -> list[str]:
    """Returns the faults of single steps that the shorter run of `value_faults` did not find."""
    faults = []
    for name, places in trial.problems.items():
        problem, _, leaf = name.partition(": ")
        field = re.split(r"[.\[]", leaf)[0]
        known_words = {"not finite": f"`{field}` contains", "no legal action": "no legal action"}
        words = known_words.get(problem)
        if not places.any() or any(words and words in fault for fault in known):
            continue
        steps = int(places.any(axis=1).argmax()) + 1
        at_bounds = spec.action_shape and not places[:, AT_BOUNDS:].any()
        after = f"{steps} {'steps with actions at their bounds' if at_bounds else 'random steps'}"
        faults.append(PROBLEMS[problem].format(leaf=leaf, after=after))
    if not trial.is_repeatable:
        faults.append(
            "The same state, actions and key gave two different results; `step` must depend on its "
            "arguments alone."
        )
    return faults


def _type_warnings(env: Env) -> list[str]:
    """Returns warnings about weak types and 64-bit numbers."""
    key = jax.random.key(0)
    state, obs = jax.eval_shape(env.reset, key)
    leaves = named_leaves(state, "state") | named_leaves(obs)
    weak = [name for name, x in leaves.items() if getattr(x, "weak_type", False)]
    wide = [name for name, x in leaves.items() if x.dtype in (jnp.float64, jnp.int64)]
    warnings = []
    if weak:
        warnings.append(
            f"`{weak[0]}` is a weakly typed number after `reset`, as Python's are, so that the "
            "first steps may be compiled twice; return an array, such as `jnp.int32(0)`."
        )
    if wide:
        warnings.append(
            f"`{wide[0]}` has {leaves[wide[0]].dtype.itemsize * 8} bits; 32 are faster."
        )
    return warnings


def _range_warnings(spec: EnvSpec, trial: Trial) -> list[str]:
    warnings = []
    structs = named_leaves(obs_structs(spec))
    for name, (low, high) in trial.ranges.items():
        dtype, size = structs[name].dtype, max(abs(low), abs(high))
        is_image = len(structs[name].shape) == 3 and dtype == jnp.uint8
        if dtype == jnp.bool or spec.num_states or is_image:
            continue
        if jnp.issubdtype(dtype, jnp.integer):
            warnings.append(
                f"`{name}` is {dtype.name}, from {low:g} to {high:g}. Networks take integers as "
                "numbers; return categories as one-hot vectors."
            )
        elif size > LARGE:
            warnings.append(
                f"`{name}` reaches {size:g}; scale it, or set `normalize_obs=True` in agents that "
                "have this option."
            )
    largest = float(np.abs(trial.reward).max())
    if largest > LARGE:
        warnings.append(f"Rewards reach {largest:g}; scale them, or set `normalize_reward=True`.")
    return warnings


def _obs_facts(spec: EnvSpec, trial: Trial) -> list[str]:
    facts = []
    for name, struct in named_leaves(obs_structs(spec)).items():
        low, high = trial.ranges[name]
        values = f"always {low:g}" if low == high else f"from {low:g} to {high:g}"
        facts.append(f"`{name}` is {struct.dtype.name} {list(struct.shape)}, {values}.")
    starts = [np.asarray(x) for x in jax.tree.leaves(trial.starts)]
    if all((x == x[:1]).all() for x in starts):
        facts.append("All episodes start from the same observation.")
    if spec.num_actions:
        masked = f", of which `{spec.action_mask}` allows some" if spec.action_mask else ""
        sizes = " x ".join(map(str, choices(spec.num_actions)))
        facts.append(f"Actions are discrete, {sizes}{masked}.")
    else:
        facts.append(f"Actions are continuous, {list(spec.action_shape)}.")
    return facts


def _reward_facts(trial: Trial) -> list[str]:
    reward = trial.reward[:, AT_BOUNDS:]
    if reward.min() == reward.max():
        return [f"All rewards of {reward.size:,} random steps are {reward.min():g}."]
    rate = float((reward != 0).mean())
    return [
        f"Rewards of random actions are from {reward.min():g} to {reward.max():g}, "
        f"{reward.mean():.3g} on average; {rate:.1%} are not 0."
    ]
