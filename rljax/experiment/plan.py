"""A plan: one experiment, completely checked before its program is compiled."""

import dataclasses
from functools import partial
from operator import itemgetter
from types import FunctionType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from rljax import config as configs
from rljax import envs
from rljax.agents import AGENTS, AgentRow
from rljax.config.run import for_programs
from rljax.envs.memory import carry_memory
from rljax.envs.state import show_state
from rljax.experiment.plan_checks import (
    worker_part,
)
from rljax.experiment.settings import AXIS
from rljax.ops import random
from rljax.results import sweeps, texts
from rljax.training.learner import make_learner
from rljax.training.parallel import WORKERS
from rljax.training.runs import MakeLearner, RunInit
from rljax.types import Agent, Env, PyTree


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

    @property
    def program_config(self) -> Any:
        """The config as an argument of compiled programs.

        The programs of rljax's agents serve runs of any length. Others may need the number of
        updates while they are traced, for example for a schedule of optax.
        """
        is_own = self.row.make.__module__.startswith("rljax.") and not self.pieces
        return for_programs(self.config) if is_own else self.config

    def run_inits(self) -> RunInit:
        """Returns the keys and swept values of all runs, `[R]`: settings slowest, seeds fastest.

        The key of seed i depends only on `seed` and i.
        """
        return self._inits(workers=1)

    def worker_inits(self) -> RunInit:
        """Returns `run_inits` of all run-worker pairs, `[R * W]`; workers vary fastest."""
        return self._inits(self.workers)

    def _inits(self, workers: int) -> RunInit:
        """The indices are arrays of NumPy, so that one small program is compiled, for the keys."""
        run = np.arange(self.num_runs).repeat(workers)
        seeds = (run % self.num_seeds).astype(np.uint32)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(random.seed_key(self.seed), seeds)
        swept = {name: values[run // self.num_seeds] for name, values in self.swept.items()}
        worker = np.tile(np.arange(workers, dtype=np.int32), self.num_runs)
        return RunInit(keys, swept, worker)

    def first_workers(self, tree: PyTree) -> PyTree:
        """Returns the entries of the first worker of each run: `[R * W, ...] -> [R, ...]`."""
        return jax.tree.map(lambda x: x[:: self.workers], tree)

    def by_setting(self, tree: PyTree) -> PyTree:
        """Returns a tree with the axes `[*sweep, seeds]` for its axis of runs `[R]`."""
        return jax.tree.map(lambda x: x.reshape(*self.leading_shape, *x.shape[1:]), tree)

    def cache_key(self) -> Any:
        """Returns a key that is equal for plans with the same compiled program.

        It is None for environments and pieces of the user's own that cannot be compared.
        """
        if self.custom_env or not all(map(is_comparable, self.pieces.values())):
            return None
        params = tuple(sorted(self.env_params.items()))
        structure = jax.tree.structure(self.program_config)
        runs = self.num_runs, self.workers
        pieces = tuple(sorted(self.pieces.items(), key=itemgetter(0)))
        return self.row.make, self.env_id, params, structure, tuple(self.swept), runs, pieces

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


def is_comparable(piece: Any) -> bool:
    """Returns whether pieces that are equal to this one make the same program, as in `jax.jit`.

    A function is equal to itself, and a flax.linen module to one of the same class with equal
    attributes. Other objects may have been changed since an earlier call.
    """
    if isinstance(piece, tuple):  # also an `optax.GradientTransformation` or a `Replay`
        return all(map(is_comparable, piece))
    if not isinstance(piece, FunctionType | nn.Module | str | int | float | None):
        return False
    try:
        hash(piece)
    except TypeError:  # an attribute of a module is an array
        return False
    return True


def as_observed(row: AgentRow, config: Any, env: Env) -> Env:
    """Returns an environment as an agent observes it: with its memory, or with the state."""
    if row.plans_ahead:
        env = show_state(env)
    memory = row.initial_memory(config, env.spec)
    return env if memory is None else carry_memory(env, memory)
