"""A plan: an experiment, checked in every way that needs no compiling."""

import dataclasses
import difflib
import inspect
import itertools
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import config as configs
from rljax import envs
from rljax.agents import AGENTS, AgentRow
from rljax.envs.memory import carry_memory
from rljax.training.learner import make_learner
from rljax.training.parallel import WORKERS
from rljax.training.runs import MakeLearner, Start
from rljax.types import Agent, Env, PyTree

RUN_OPTIONS = (
    "num_seeds", "seed", "num_reports", "devices", "env_params", "run_dir", "eval_episodes", "progress",
    "writers", "save_seconds", "resume",
)  # fmt: skip
RECORDED = (
    "num_seeds",
    "seed",
    "num_reports",
    "env_params",
    "devices",
)  # of these, what a file may say


class Plan(NamedTuple):
    """What is to be run."""

    agent: str
    env_id: str
    row: AgentRow
    env: Any  # as it was given
    env_params: dict[str, Any]
    config: Any  # swept fields hold their first value
    sweep: dict[str, list[float]]
    pieces: dict[str, Any]  # arguments of the maker: network, optimizer, ...
    num_seeds: int
    seed: int
    num_reports: int
    workers: int = 1  # devices that learn each run together

    @property
    def lead(self) -> tuple[int, ...]:
        """The leading axes of results: `(*sweep, seeds)`."""
        return (*(len(values) for values in self.sweep.values()), self.num_seeds)

    @property
    def num_runs(self) -> int:
        """R: settings times seeds."""
        return int(np.prod(self.lead))

    @property
    def steps_per_update(self) -> int:
        """Environment steps that one update of one run takes."""
        return self.config.num_envs * self.config.num_steps

    def make_agent(self, config: Any, env: Env) -> Agent:
        """The agent of one run, whose config may hold tracers."""
        return self.row.make(config, env.spec, **self.pieces)

    def build_env(self, num_envs: int) -> Env:
        """The environment, `num_envs` side by side."""
        single = envs.make(self.env, **self.env_params)
        memory = self.row.initial_memory(self.config)
        return envs.batched(single if memory is None else carry_memory(single, memory), num_envs)

    def make_learner(self) -> MakeLearner:
        """`config -> Learner`, over one environment that all runs share the code of.

        Of several workers each has its part of the environments and of the steps, so that
        schedules end with the run.
        """
        env = self.build_env(self.config.num_envs // self.workers)
        if self.workers == 1:
            return lambda config: make_learner(self.make_agent(config, env), env, config.num_steps)
        average = partial(jax.lax.pmean, axis_name=WORKERS)

        def make(config):
            part = worker_part(config, self.workers)
            agent = self.row.make(part, env.spec, **self.pieces, average=average)
            return make_learner(agent, env, config.num_steps)

        return make

    def starts(self) -> Start:
        """What each run starts from, `[R]`: settings vary slowest, seeds fastest.

        The key of seed i depends on nothing but `seed` and i.
        """
        keys = jax.vmap(jax.random.fold_in, (None, 0))(
            jax.random.key(self.seed), np.arange(self.num_seeds, dtype=np.uint32)
        )
        settings = np.array(list(itertools.product(*self.sweep.values())), np.float32)
        repeated = settings.repeat(self.num_seeds, axis=0)
        swept = {name: jnp.asarray(repeated[:, i]) for i, name in enumerate(self.sweep)}
        keys = keys[np.tile(np.arange(self.num_seeds), self.num_runs // self.num_seeds)]
        return Start(keys, swept, jnp.zeros(self.num_runs, jnp.int32))

    def entries(self) -> Start:
        """`starts` for every worker of every run, `[R * W]`: the workers of a run side by side."""
        start = jax.tree.map(lambda x: jnp.repeat(x, self.workers, axis=0), self.starts())
        worker = jnp.tile(jnp.arange(self.workers, dtype=jnp.int32), self.num_runs)
        return start._replace(worker=worker)

    def first_workers(self, tree: PyTree) -> PyTree:
        """`[R * W, ...] -> [R, ...]`: what workers agree upon is what the first one has."""
        return jax.tree.map(lambda x: x[:: self.workers], tree)

    def cache_key(self) -> Any:
        """Plans of equal keys share their compiled program; None: this one cannot be told."""
        if self.pieces or not isinstance(self.env, str):
            return None
        params = tuple(sorted(self.env_params.items()))
        structure = jax.tree.structure(self.config)
        runs = self.num_runs, self.workers
        return self.row.make, self.env, params, structure, tuple(self.sweep), runs

    def record(self) -> dict[str, Any]:
        """The plan as plain values: what config.toml holds, and what a resume must equal."""
        head = {"agent": self.agent, "env_id": self.env_id, "num_seeds": self.num_seeds}
        head |= {"seed": self.seed, "num_reports": self.num_reports}
        tail: dict[str, Any] = {"pieces": sorted(self.pieces)} if self.pieces else {}
        if self.workers > 1:
            tail["devices"] = self.workers
        if self.env_params:
            tail["env_params"] = dict(self.env_params)
        return head | configs.to_mapping(self.config) | self.sweep | tail


def make_plan(
    agent: Any, env: Any, *, num_seeds: Any = 1, seed: Any = 0, num_reports: Any = 50,
    env_params: Mapping[str, Any] | None = None, devices: Any = None, **hyperparameters: Any,
) -> Plan:  # fmt: skip
    """Checks what is to be run; the arguments are those of `rljax.train`.

    Raises:
      ValueError: whatever is wrong, in one sentence.
    """
    name, row = _agent(agent)
    num_seeds = at_least("num_seeds", num_seeds, 1)
    num_reports = at_least("num_reports", num_reports, 1)
    seed = at_least("seed", seed, 0)
    params = dict(env_params or {})
    values, sweep, pieces = _sorted(name, row, hyperparameters)
    for setting in itertools.product(*sweep.values()):  # each is checked, the first one is kept
        configs.from_mapping(row.config, values | dict(zip(sweep, setting, strict=True)))
    config = configs.from_mapping(row.config, values | {k: v[0] for k, v in sweep.items()})
    single = envs.make(env, **params)
    if not isinstance(env, str):
        envs.check_env(single)
    env_id = env if isinstance(env, str) else single.spec.env_id
    row.check(name, single.spec)
    num_reports = min(num_reports, config.num_updates)
    workers = 1 if devices is None else at_least("devices", devices, 1)
    if workers > 1 and "average" not in inspect.signature(row.make).parameters:
        raise ValueError(
            f"`devices` is {workers}, but the maker of `{name}` takes no `average=`, through which "
            "workers share what they learn: give it one, or leave `devices` out."
        )
    plan = Plan(
        name, env_id, row, env, params, config, sweep, pieces, num_seeds, seed, num_reports, workers
    )  # fmt: skip
    part = worker_part(config, workers)
    plan.make_agent(part, plan.build_env(part.num_envs))  # makers check what they are given
    return plan


def worker_part(config: Any, workers: int) -> Any:
    """The config of one of several workers, which share out the environments and the steps.

    Raises:
      ValueError: the environments cannot be shared out.
    """
    if workers == 1:
        return config
    if config.num_envs % workers:
        raise ValueError(
            f"`num_envs` is {config.num_envs}, but the {workers} devices share them out: make it "
            f"a multiple of {workers}."
        )
    part = {
        "num_envs": config.num_envs // workers,
        "total_timesteps": config.total_timesteps // workers,
    }
    try:
        return dataclasses.replace(config, **part)
    except ValueError as error:
        raise ValueError(f"on each of {workers} devices: {error}") from None


def plan_of(
    record: Mapping[str, Any], env: Any = None, agent: Any = None, **pieces: Any
) -> Plan:  # fmt: skip
    """The plan of a record (`Plan.record`, config.toml).

    Args:
      env: for a run on an environment of your own, which a file cannot hold.
      agent: likewise: `(config class, maker)`.
      pieces: likewise: network=, optimizer=, ...

    Raises:
      ValueError: also where the run had pieces that are not given.
    """
    values = dict(record)
    name, env_id = values.pop("agent", None), values.pop("env_id", None)
    if not isinstance(name, str) or not isinstance(env_id, str):
        missing = "agent" if not isinstance(name, str) else "env_id"
        raise ValueError(f'`{missing}` is missing from the configuration: add {missing} = "...".')
    agent = name if agent is None else agent
    wanted = sorted(values.pop("pieces", []))
    if missing := sorted(set(wanted) - set(pieces)):
        raise ValueError(
            f"the run was made with `{missing[0]}=`, which a file cannot hold: give it again."
        )
    known = [*configs.field_types(_agent(agent)[1].config), *RECORDED]
    for key in values:
        if key not in known:
            raise configs.unknown_key(key, known, f"`{name}`")
    return make_plan(agent, env_id if env is None else env, **(values | pieces))


def at_least(name: str, value: Any, low: int) -> int:
    """A whole number that is not below `low`."""
    number = configs.convert(name, value, int)
    if number < low:
        raise ValueError(f"`{name}` is {value}, but it must be at least {low}.")
    return number


def piece_names(row: AgentRow) -> list[str]:
    """The pieces that a maker takes: network, optimizer, ..."""
    parameters = inspect.signature(row.make).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "average"]


def _agent(agent: Any) -> tuple[str, AgentRow]:
    if isinstance(agent, str):
        if agent not in AGENTS:
            near = difflib.get_close_matches(agent, AGENTS, n=1)
            cure = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(AGENTS)}."
            raise ValueError(f"there is no agent `{agent}`: {cure}")
        return agent, AGENTS[agent]
    if isinstance(agent, tuple) and len(agent) >= 2 and callable(agent[1]):
        return getattr(agent[1], "__name__", "agent"), AgentRow(*agent)
    raise ValueError(
        f"`agent` is {agent!r}, but it must be a name ({', '.join(AGENTS)}) or a pair of a config "
        "class and a maker, like the rows of `rljax.AGENTS`."
    )


def _sorted(
    agent: str, row: AgentRow, hyperparameters: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, list[float]], dict[str, Any]]:
    """Hyperparameters sorted into values, sweeps and pieces."""
    types = configs.field_types(row.config)
    known = piece_names(row)
    values, sweep, pieces = {}, {}, {}
    for name, value in hyperparameters.items():
        if name in known and not isinstance(value, (str, bool, int, float)):
            pieces[name] = value
        elif name in known and name not in types:
            raise ValueError(
                f"`{name}` is {value!r}, but it is a piece of `{agent}`: give the object."
            )
        elif name not in types:
            raise configs.unknown_key(name, [*types, *known, *RUN_OPTIONS], f"`{agent}`")
        elif np.ndim(value) > 0 and types[name] in (int, float, str, bool):
            sweep[name] = _swept(name, value, types[name])
        else:
            values[name] = value
    return values, sweep, pieces


def _swept(name: str, value: Any, kind: type) -> list[float]:
    if kind is not float:
        raise ValueError(
            f"`{name}` is {list(value)}, but it shapes the program and cannot be swept in one "
            "compilation: call train once for each value."
        )
    if np.ndim(value) != 1 or len(value) == 0:
        raise ValueError(f"`{name}` is {value!r}, but a sweep must be a flat list of numbers.")
    return [configs.convert(name, item, float) for item in value]
