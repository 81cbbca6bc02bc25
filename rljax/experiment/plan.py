"""A plan: one experiment, completely checked before its program is compiled."""

import dataclasses
import inspect
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
from rljax.envs.state import show_state
from rljax.experiment.hyperparameters import split_hyperparameters
from rljax.experiment.options import RECORDED
from rljax.experiment.plan_checks import (
    check_effect,
    check_evaluations,
    check_rollout_memory,
    checked_name,
    worker_part,
)
from rljax.experiment.settings import AXIS, checked_settings, groups
from rljax.ops import random
from rljax.ops.precision import in_32_bits
from rljax.results import sweeps, texts
from rljax.training import compile_cache
from rljax.training.learner import make_learner
from rljax.training.parallel import WORKERS
from rljax.training.runs import MakeLearner, RunInit
from rljax.types import Agent, Env, PyTree

MAX_REPORTS = 10**6
MAX_SEEDS = 2**24  # their keys fit into memory before the program's memory is known


class Plan(NamedTuple):
    """One experiment: an agent, an environment, hyperparameters and seeds.

    Attributes:
      agent: name of the agent.
      env_id: id of the environment, or the name of the user's own.
      row: config class and maker of the agent.
      env: one copy of the environment, built and checked once; it carries the memory of a
        recurrent agent.
      env_params: parameters the environment was made with.
      custom_env: the environment is the user's own object, which config.toml cannot hold.
      config: config of the agent; swept fields hold their first value.
      sweep: values of the swept fields; of a list of settings, "setting" with a list of dicts.
      pieces: arguments of the maker: network, optimizer, ...
      num_seeds: number of runs of each setting of the sweep.
      seed: random seed.
      num_reports: number of points of the learning curves.
      workers: number of devices that train each run together.
      name: label of the runs in figures and tables; "" shows the name of the agent.
      eval_interval: environment steps between two evaluations during training; 0 for none.
      stop_at: mean return of an evaluation at which training stops; None for none.
      stop_by: "median" stops all seeds of a setting when their median reaches `stop_at`, "seed"
        each seed by itself.
    """

    agent: str
    env_id: str
    row: AgentRow
    env: Env
    env_params: dict[str, Any]
    custom_env: bool
    config: Any
    sweep: dict[str, list[Any]]
    pieces: dict[str, Any]
    num_seeds: int
    seed: int
    num_reports: int
    workers: int = 1
    name: str = ""
    eval_interval: int = 0
    stop_at: float | None = None
    stop_by: str = "median"

    @property
    def leading_shape(self) -> tuple[int, ...]:
        """Leading axes of results, `(*sweep, seeds)`."""
        return (*(len(values) for values in self.sweep.values()), self.num_seeds)

    @property
    def num_runs(self) -> int:
        """Number of runs R: settings of the sweep times seeds."""
        return int(np.prod(self.leading_shape))

    @property
    def steps_per_update(self) -> int:
        """Environment steps that one update of one run takes."""
        return self.config.num_envs * self.config.num_steps

    @property
    def total_steps(self) -> int:
        """Environment steps of one complete run."""
        return self.config.num_updates * self.steps_per_update

    @property
    def title(self) -> str:
        """One line, such as "ppo CartPole-v1 · 8 seeds · cpu"."""
        seeds = f"{self.num_seeds} seed{'s' * (self.num_seeds > 1)}"
        runs = f"{self.num_runs} runs" if self.sweep else seeds
        name = f" ({self.name})" if self.name else ""
        return f"{self.agent}{name} {self.env_id} · {runs} · {jax.default_backend()}"

    def run_name(self, index: int) -> str:
        """Returns the swept values and the seed of a run: "learning_rate 0.01, seed 3"."""
        *setting, seed = np.unravel_index(index, self.leading_shape)
        number = np.ravel_multi_index(setting, self.leading_shape[:-1]) if setting else 0
        swept = sweeps.settings(self.sweep)[number]
        return ", ".join([*(f"{k} {texts.value(v)}" for k, v in swept.items()), f"seed {seed}"])

    @property
    def swept(self) -> dict[str, np.ndarray]:
        """Values of the fields that differ between the settings, `[settings]` float32."""
        settings, types = sweeps.settings(self.sweep), configs.field_types(self.row.config)
        names = [name for name in settings[0] if types.get(name) is float]
        return {name: np.array([x[name] for x in settings], np.float32) for name in names}

    def config_of(self, index: int) -> Any:
        """Returns the config of one run, with its values of the swept fields."""
        swept = {name: values[index] for name, values in self.run_inits().swept.items()}
        return dataclasses.replace(self.config, **swept)

    def make_agent(self, config: Any, env: Env) -> Agent:
        """Returns the agent of one run; the floats of its config may be traced."""
        return self.row.make(config, env.spec, **self.pieces)

    def build_env(self, num_envs: int) -> Env:
        """Returns `num_envs` copies of the environment as one batched environment."""
        return envs.batched(self.env, num_envs)

    def make_learner(self) -> MakeLearner:
        """Returns `config -> Learner`, over one batched environment.

        Of several workers, each has its part of the environments and of the total steps, so that
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

    def run_inits(self) -> RunInit:
        """Returns the keys and swept values of all runs, `[R]`: settings slowest, seeds fastest.

        The key of seed i depends only on `seed` and i.
        """
        keys = jax.vmap(jax.random.fold_in, (None, 0))(
            random.seed_key(self.seed), np.arange(self.num_seeds, dtype=np.uint32)
        )
        swept = {
            name: jnp.asarray(values.repeat(self.num_seeds)) for name, values in self.swept.items()
        }
        keys = keys[np.tile(np.arange(self.num_seeds), self.num_runs // self.num_seeds)]
        return RunInit(keys, swept, jnp.zeros(self.num_runs, jnp.int32))

    def worker_inits(self) -> RunInit:
        """Returns `run_inits` of all run-worker pairs, `[R * W]`; workers vary fastest."""
        inits = jax.tree.map(lambda x: jnp.repeat(x, self.workers, axis=0), self.run_inits())
        worker = jnp.tile(jnp.arange(self.workers, dtype=jnp.int32), self.num_runs)
        return inits._replace(worker=worker)

    def first_workers(self, tree: PyTree) -> PyTree:
        """Returns the entries of the first worker of each run: `[R * W, ...] -> [R, ...]`."""
        return jax.tree.map(lambda x: x[:: self.workers], tree)

    def by_setting(self, tree: PyTree) -> PyTree:
        """Returns a tree with the axes `[*sweep, seeds]` for its axis of runs `[R]`."""
        return jax.tree.map(lambda x: x.reshape(*self.leading_shape, *x.shape[1:]), tree)

    def cache_key(self) -> Any:
        """Returns a key that is equal for plans with the same compiled program.

        It is None for pieces and for the user's own environments, which cannot be compared.
        """
        if self.pieces or self.custom_env:
            return None
        params = tuple(sorted(self.env_params.items()))
        structure = jax.tree.structure(self.config)
        runs = self.num_runs, self.workers
        return self.row.make, self.env_id, params, structure, tuple(self.swept), runs

    def record(self) -> dict[str, Any]:
        """Returns the plan as plain values: the content of config.toml."""
        head = {"agent": self.agent, "env_id": self.env_id}
        if self.name:
            head["name"] = self.name
        head |= {"num_seeds": self.num_seeds, "seed": self.seed, "num_reports": self.num_reports}
        fields = configs.to_mapping(self.config)
        listed = self.sweep.get(AXIS, [{}])[0]
        replaced = {*self.pieces, *listed}
        body = {name: value for name, value in fields.items() if name not in replaced}
        own = {*self.pieces, *(["env"] if self.custom_env else [])}
        own |= {"agent"} if AGENTS.get(self.agent) != self.row else set()
        tail: dict[str, Any] = {"pieces": sorted(own)} if own else {}
        if self.eval_interval:
            tail["eval_interval"] = self.eval_interval
        if self.stop_at is not None:
            tail |= {"stop_at": self.stop_at, "stop_by": self.stop_by}
        if self.workers > 1:
            tail["devices"] = self.workers
        if self.env_params:
            tail["env_params"] = dict(self.env_params)
        sweep = {"settings" if name == AXIS else name: x for name, x in self.sweep.items()}
        return head | body | sweep | tail


@in_32_bits
def make_plan(
    agent: Any, env: Any, *, num_seeds: Any = 1, seed: Any = 0, num_reports: Any = 50,
    env_params: Any = None, devices: Any = None, name: Any = None, eval_interval: Any = 0,
    stop_at: Any = None, stop_by: Any = "median", settings: Any = None, **hyperparameters: Any,
) -> Plan:  # fmt: skip
    """Checks the arguments of `rljax.train` and builds the environment.

    Raises:
      ValueError: an argument is wrong; one sentence says which.
    """
    compile_cache.enable()
    agent, row = agent_row(agent)
    num_seeds = configs.at_least("num_seeds", num_seeds, 1, MAX_SEEDS)
    num_reports = configs.at_least("num_reports", num_reports, 1, MAX_REPORTS)
    seed = random.checked_seed(seed)
    env, params = envs.with_params(env, env_params)
    values, sweep, pieces = split_hyperparameters(agent, row, hyperparameters)
    if settings is not None:
        values, sweep, pieces = _with_settings(agent, row, settings, values, sweep, pieces)
    # each swept value has been checked; the extremes are checked together with the other options
    extremes = {
        name: options if name == AXIS else [*{min(options), max(options)}]
        for name, options in sweep.items()
    }
    for setting in sweeps.settings(extremes):
        configs.from_mapping(row.config, values | _fields(row, setting))
    config = configs.from_mapping(row.config, values | _fields(row, sweeps.settings(sweep)[0]))
    custom_env = not isinstance(env, str)
    single = envs.make(env, **params)
    if custom_env:
        envs.validate(single)
    row.check(agent, single.spec)
    check_rollout_memory(config, single.spec)
    workers = 1 if devices is None else configs.at_least("devices", devices, 1)
    if workers > 1 and "average" not in inspect.signature(row.make).parameters:
        raise ValueError(
            f"`devices` is {workers}, but the maker of `{agent}` has no argument `average`, which "
            "averages gradients over devices: add it, or leave `devices` out."
        )
    num_reports = min(num_reports, config.num_updates)
    evaluations = check_evaluations(config, num_reports, eval_interval, stop_at, stop_by)
    plan = Plan(
        agent=agent, env_id=single.spec.env_id if custom_env else env, row=row,
        env=as_observed(row, config, single), env_params=params,
        custom_env=custom_env, config=config, sweep=sweep, pieces=pieces, num_seeds=num_seeds,
        seed=seed, num_reports=num_reports, workers=workers, name=checked_name(name),
        eval_interval=evaluations[0], stop_at=evaluations[1], stop_by=evaluations[2],
    )  # fmt: skip
    part = worker_part(config, workers)
    plan.make_agent(part, plan.build_env(part.num_envs))  # the maker checks its arguments
    if sweep and workers == 1:
        check_effect(plan.make_learner(), config, plan.swept)
    return plan


def _with_settings(
    agent: str, row: AgentRow, settings: Any, values: Any, sweep: Any, pieces: Any
) -> tuple[dict[str, Any], dict[str, list[Any]], dict[str, Any]]:
    """Returns values, sweep and pieces with a list of settings that share one program."""
    checked = checked_settings(agent, row, settings, values, {*values, *sweep, *pieces})
    if len(groups(checked)) > 1:
        static = [x for x in checked[0].shown if x not in checked[0].floats]
        raise ValueError(
            f"the settings of the run differ in {' and '.join(static)}, so that each compiled "
            "program has a directory of its own in that of the run: give one of those."
        )
    sweep = {AXIS: [setting.shown for setting in checked], **sweep}
    return values | checked[0].static, sweep, pieces | checked[0].pieces


def _fields(row: AgentRow, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a setting that are float fields of a config."""
    types = configs.field_types(row.config)
    return {name: value for name, value in setting.items() if types.get(name) is float}


def as_observed(row: AgentRow, config: Any, env: Env) -> Env:
    """Returns an environment as an agent observes it: with its memory, or with the state."""
    if row.plans_ahead:
        env = show_state(env)
    memory = row.initial_memory(config, env.spec)
    return env if memory is None else carry_memory(env, memory)


def plan_from_record(
    record: Mapping[str, Any], env: Any = None, agent: Any = None, **pieces: Any
) -> Plan:
    """Rebuilds a plan from its record (`Plan.record`, config.toml).

    The arguments and errors are those of `from_record`, and a `ValueError` if the settings of the
    run have several compiled programs.
    """
    return make_plan(**from_record(record, env, agent, **pieces))


def from_record(
    record: Mapping[str, Any], env: Any = None, agent: Any = None, **pieces: Any
) -> dict[str, Any]:
    """Returns the arguments of `make_plan` that a record was made with.

    Args:
      record: plain values.
      env: the environment, if it is your own object.
      agent: `(config class, maker)`, if it is your own agent.
      pieces: the pieces that the run was made with: network=, optimizer=, ...

    Raises:
      ValueError: a value is wrong, or a piece is missing.
    """
    values = dict(record)
    name, env_id = values.pop("agent", None), values.pop("env_id", None)
    if not isinstance(name, str) or not isinstance(env_id, str):
        missing = "agent" if not isinstance(name, str) else "env_id"
        raise ValueError(f'`{missing}` is missing from the configuration: add {missing} = "...".')
    own_agent = agent is not None
    agent = agent if own_agent else name
    given = {*pieces, *(["env"] if env is not None else []), *(["agent"] if own_agent else [])}
    given |= {name for setting in pieces.get("settings") or () for name in setting}
    if missing := sorted(set(values.pop("pieces", [])) - given):
        raise ValueError(
            f"the run was made with its own `{missing[0]}`, which config.toml cannot hold: pass "
            f"`{missing[0]}=` again, in Python."
        )
    known = [*configs.field_types(agent_row(agent)[1].config), *RECORDED]
    for key in values:
        if key not in known:
            raise configs.unknown_key(key, known, f"`{name}`")
    values |= pieces
    return {"agent": agent, "env": env_id if env is None else env, **values}


def agent_row(agent: Any) -> tuple[str, AgentRow]:
    """Returns the name and the row of an agent, given by name or as a config class and a maker.

    Raises:
      ValueError: there is no such agent.
    """
    if isinstance(agent, str):
        if agent not in AGENTS:
            raise ValueError(f"there is no agent `{agent}`: {configs.suggestion(agent, AGENTS)}")
        return agent, AGENTS[agent]
    if isinstance(agent, tuple) and len(agent) >= 2 and callable(agent[1]):
        return getattr(agent[1], "__name__", "agent"), AgentRow(*agent)
    raise ValueError(
        f"`agent` is {agent!r}, but it must be a name ({', '.join(AGENTS)}) or a pair of a config "
        "class and a maker, like the rows of `rljax.AGENTS`."
    )
