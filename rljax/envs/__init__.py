"""Environments: `make` returns one that resets itself, `build` a batch of them for a learner.

Importing this package imports no suite of environments; `make` imports the one that is asked
for.
"""

import difflib
import importlib
import importlib.util
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rljax.config import convert, kind_of, nearest
from rljax.envs.checks import check_shapes
from rljax.envs.opponents import without_reset
from rljax.envs.report import EnvReport, check_env
from rljax.envs.resets import auto_reset
from rljax.envs.value_checks import validate
from rljax.envs.wrappers import batched, record_episodes, time_limit
from rljax.ops.precision import in_32_bits
from rljax.types import Env

__all__ = [
    "SUITES", "EnvReport", "auto_reset", "batched", "build", "check_env", "environment_ids",
    "is_installed", "make", "parameters", "record_episodes", "time_limit", "validate",
    "with_params",
]  # fmt: skip


class Suite(NamedTuple):
    """A suite of environments.

    Attributes:
      module: has `registered() -> names` and `from_id(name, **params) -> Env`; the `Env` does
        not reset and takes `max_episode_steps`. It may have `from_object(env, env_params=None,
        **params) -> Env` for environment objects of the package, and `unavailable(name) ->
        reason` for environments that cannot be made, such as those that need files which are not
        there; the reason is a sentence, or empty.
      package: name under which the package of the environments is imported; "rljax" if they need
        none.
      about: the suite in a few words.
      extra: `pip install "rljax-research[EXTRA]"` installs the package; empty for a dependency
        of rljax.
    """

    module: str
    package: str = "rljax"
    about: str = ""
    extra: str = ""

    @property
    def requirement(self) -> str:
        """Argument of `pip install` that installs the package of the suite."""
        return f"rljax-research[{self.extra}]" if self.extra else "rljax-research"


SUITES = {  # ids are `suite/Name`; the prefix `gymnax/` may be omitted
    "gymnax": Suite("rljax.envs.gymnax", "gymnax", "classic control, bsuite, MinAtar"),
    "rljax": Suite("rljax.envs.worlds", "rljax", "gridworlds, walks, arms, a car, board games"),
    "partial": Suite("rljax.envs.partial", "rljax", "tasks with hidden velocities"),
    "brax": Suite("rljax.envs.brax", "brax", "robots, rigid-body physics", "brax"),
    "playground": Suite(
        "rljax.envs.playground", "mujoco_playground", "DeepMind control, MuJoCo", "playground"
    ),
    "navix": Suite("rljax.envs.navix", "navix", "MiniGrid", "navix"),
    "xminigrid": Suite("rljax.envs.xminigrid", "xminigrid", "XLand-MiniGrid", "xminigrid"),
    "craftax": Suite("rljax.envs.craftax", "craftax", "Crafter and Craftax", "craftax"),
    "jumanji": Suite("rljax.envs.jumanji", "jumanji", "games, packing, routing", "jumanji"),
    "pgx": Suite("rljax.envs.pgx", "pgx", "games of one player and of two", "pgx"),
    "gymnasium": Suite("rljax.envs.gymnasium", "gymnasium", "Gymnasium, in Python", "gymnasium"),
    "atari": Suite("rljax.envs.atari", "ale_py", "Atari 2600, in C++", "atari"),
}
WITH_GAMES = ("rljax", "pgx")  # suites with games of two players
ALWAYS_THERE = tuple(name for name, suite in SUITES.items() if not suite.extra)


def is_installed(suite: str) -> bool:
    """Whether the package of a suite can be imported; it is not imported for this."""
    return importlib.util.find_spec(SUITES[suite].package) is not None


def environment_ids(suite: str | None = None) -> list[str]:
    """Returns the ids that `make` takes, of one suite or of all that are installed.

    Environments that cannot be made, such as those whose data are missing, are left out. To list
    a suite imports its package, which takes seconds for some.

    Raises:
      ValueError: there is no such suite, or it is not installed.
    """
    if suite is None:
        return [env_id for name in SUITES if is_installed(name) for env_id in environment_ids(name)]
    if suite not in SUITES:
        raise ValueError(f"there is no environment suite `{suite}`: {_suite_hint(suite)}")
    module = _module_of(suite, suite)
    unavailable = getattr(module, "unavailable", None)
    names = [name for name in module.registered() if not (unavailable and unavailable(name))]
    return names if suite == "gymnax" else [f"{suite}/{name}" for name in names]


@in_32_bits
def make(env: Any, **params: Any) -> Env:
    """Makes a single environment that resets itself.

    Args:
      env: an id, such as "CartPole-v1" or "rljax/Maze"; an environment of one of the suites; a
        pair of one of the two and the environment's parameters, as `gymnax.make` returns it; or
        an `Env` that resets itself, which is returned unchanged.
      params: parameters of the environment by name. `max_episode_steps` sets the time limit of
        any environment. `opponent` makes a game of two players, of the suites rljax and pgx, one
        of one player (see `opponents.against`).

    Raises:
      ValueError: an unknown id or parameter (the message names the nearest known one), a suite
        that is not installed, or an environment that is not well-formed (see `check_shapes`).

    Example:
      >>> env = make("rljax/Maze", max_episode_steps=50)
      >>> env.spec.num_states, env.spec.num_actions, env.spec.max_episode_steps
      (16, 4, 50)
    """
    env, params = with_params(env, params)
    for name, value in params.items():
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"the parameter `{name}` is {value}, but it must be a number.")
    if "max_episode_steps" in params:
        limit = convert("max_episode_steps", params["max_episode_steps"], int)
        if limit < 1:
            raise ValueError(f"`max_episode_steps` is {limit}, but it must be at least 1.")
        params["max_episode_steps"] = limit
    if isinstance(env, Env):
        return _with_time_limit(env, **params)
    if isinstance(env, str):
        suite, name = _split_id(env)
        opponent = params.pop("opponent", None) if suite in WITH_GAMES else None
        made = importlib.import_module(SUITES[suite].module).from_id(name, **params)
    else:
        env, env_params = env if _is_pair(env) else (env, None)
        suite = _suite_of_object(env)
        opponent = params.pop("opponent", None) if suite in WITH_GAMES else None
        module = importlib.import_module(SUITES[suite].module)
        made = module.from_object(env, env_params, **params)
    if opponent is not None:
        made = without_reset(made, opponent)
    if made.batch is not None:  # it resets itself and runs on the host
        return made
    check_shapes(made)  # before `auto_reset`, whose errors would come from JAX
    return auto_reset(made)


def parameters(env_id: str) -> dict[str, Any]:
    """Returns the parameters of an environment and their defaults, as far as they are known.

    Raises:
      ValueError: an unknown id, or a suite that is not installed.

    Example:
      >>> parameters("rljax/Maze")["max_episode_steps"] is None
      True
    """
    suite, name = _split_id(env_id)
    known = getattr(importlib.import_module(SUITES[suite].module), "parameters", None)
    params = dict(known(name)) if known else {}
    limit = params.pop("max_steps_in_episode", None)
    return params | {"max_episode_steps": limit}


def with_params(env: Any, env_params: Any = None) -> tuple[Any, dict[str, Any]]:
    """Returns an environment as `make` takes it, and its parameters by name.

    Args:
      env: as for `make`.
      env_params: parameters by name, or the parameter object of a gymnax environment.

    Raises:
      ValueError: `env_params` is neither, or both `env` and `env_params` have a parameter object.
    """
    if _is_pair(env) and isinstance(env[0], str):
        if env_params is not None and not isinstance(env_params, Mapping):
            raise ValueError("`env` is a pair with parameters: leave out `env_params`.")
        env, changed = with_params(*env)
        return env, changed | dict(env_params or {})
    if env_params is None or isinstance(env_params, Mapping):
        return env, dict(env_params or {})
    from rljax.envs import gymnax

    if isinstance(env, str):
        suite, name = _split_id(env)
        if suite == "gymnax":
            return env, gymnax.changed_params(name, env_params)
    elif not isinstance(env, Env | tuple):
        return (env, env_params), {}
    raise ValueError(
        f"`env_params` is {kind_of(env_params)}, but it must be a mapping of names to values, "
        'such as {"max_episode_steps": 200}.'
    )


def _is_pair(env: Any) -> bool:
    return type(env) is tuple and len(env) == 2


def build(env: Any, num_envs: int, **params: Any) -> Env:
    """Makes a batch of `num_envs` copies of `make(env, **params)`, as learners take them.

    Example:
      >>> env = build("rljax/Maze", 8)
      >>> env.spec.num_envs
      8
    """
    return batched(make(env, **params), num_envs)


def _with_time_limit(env: Env, max_episode_steps: int | None = None, **params: Any) -> Env:
    """Returns the user's own `Env`, with a time limit if one is given."""
    if params:
        name = next(iter(params))
        raise ValueError(
            f"{env.spec.env_id} is an `Env`, so its parameter `{name}` cannot be set by name. Set "
            "it where the `Env` is made."
        )
    # `auto_reset` only acts at the time limit: where the task ends, the `Env` resets itself
    return auto_reset(time_limit(env, max_episode_steps)) if max_episode_steps else env


def _suite_of_object(env: Any) -> str:
    """Returns the suite whose package the class of an object is from; gymnax if there is none.

    A class of the user counts as from the package of the class that it is derived from.
    """
    packages = {suite.package: name for name, suite in SUITES.items() if suite.package != "rljax"}
    for base in type(env).__mro__:
        if name := packages.get(base.__module__.partition(".")[0]):
            return name
    return "gymnax"


def _module_of(suite: str, env_id: str) -> Any:
    """Imports the adapter of a suite. Raises ValueError if the package is not installed."""
    try:
        if is_installed(suite):
            return importlib.import_module(SUITES[suite].module)
        package = SUITES[suite].package
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    except ImportError as error:
        raise ValueError(
            f"`{env_id}` needs the package `{error.name}`, which cannot be imported. Install it "
            f"with `pip install '{SUITES[suite].requirement}'`."
        ) from error


def _suite_hint(suite: str) -> str:
    near = difflib.get_close_matches(suite.lower(), SUITES, n=1)
    return f"did you mean `{near[0]}`?" if near else f"the suites are {', '.join(SUITES)}."


def _split_id(env_id: str) -> tuple[str, str]:
    """Splits an id into its suite and its name there; raises ValueError for an unknown one."""
    suite, name = env_id.split("/", 1) if "/" in env_id else ("gymnax", env_id)
    if suite not in SUITES:
        known = [each for always in ALWAYS_THERE for each in environment_ids(always)]
        same_name = [each for each in known if each.rpartition("/")[2] == name]
        cure = f"did you mean `{same_name[0]}`?" if same_name else _suite_hint(suite)
        raise ValueError(f"there is no environment suite `{suite}` of `{env_id}`: {cure}")
    names = _module_of(suite, env_id).registered()
    if name not in names:
        known = [each for always in ALWAYS_THERE for each in environment_ids(always)]
        known = known if suite in ALWAYS_THERE else [f"{suite}/{name}" for name in names]
        near = nearest(env_id.removeprefix("gymnax/"), known)
        hint = f"did you mean `{near}`? " if near else ""
        raise ValueError(
            f"there is no environment `{env_id}`: {hint}`rljax list {suite}` shows those of the "
            "suite."
        )
    return suite, name
