"""`rljax.train` and `rljax.resume`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rljax.experiment.groups import (
    directory_of,
    groups_from_record,
    make_groups,
    run_groups,
)
from rljax.experiment.lengthen import lengthened_record
from rljax.experiment.options import RESUMABLE, read_record
from rljax.experiment.provenance import recorded_options
from rljax.experiment.report import OnReport
from rljax.experiment.writers import Writer
from rljax.results.result import Result


def train(
    agent: Any, env: Any, *, num_seeds: int = 1, seed: int = 0, name: str | None = None,
    run_dir: str | Path | None = None, num_reports: int = 50, eval_episodes: int = 100,
    progress: bool | None = None, writers: Sequence[str | Writer] = ("jsonl",),
    save_seconds: float = 30.0, env_params: Any = None, resume: bool = False,
    devices: int | None = None, eval_interval: int = 0, stop_at: float | None = None,
    stop_by: str = "median", on_report: OnReport | None = None,
    settings: Sequence[Mapping[str, Any]] | None = None, initial_params: Any = None,
    **hyperparameters: Any,
) -> Result:  # fmt: skip
    """Trains an agent with many seeds and settings at once, in one compiled program.

    Args:
      agent: a name in `rljax.AGENTS`, or your own `(config class, maker)`.
      env: an environment id (see `rljax list`), a gymnax environment, or an `rljax.Env`.
      num_seeds: number of independent runs. Run i uses `fold_in(key(seed), i)`, so more seeds do
        not change the earlier ones.
      seed: random seed.
      name: label of the run in figures and tables, by default the name of the agent. Runs that
        differ only in an argument such as `optimizer=` need names to be drawn together.
      run_dir: directory for checkpoints, metrics and the result; None writes no files.
      num_reports: number of points of the learning curves. Memory grows with it, but not with the
        number of steps.
      eval_episodes: greedy evaluation episodes of each final policy; 0 for none.
      progress: False shows nothing. Otherwise a live bar in a terminal, lines elsewhere.
      writers: names, "jsonl", "tensorboard", "wandb" or "trackio", or objects, such as
        `rljax.WandB(project="p")` or your own `rljax.experiment.writers.Writer`.
      save_seconds: minimum seconds between two checkpoints; the final state is always saved.
      env_params: parameters of the environment and `max_episode_steps`, by name; or the parameter
        object of a gymnax environment.
      resume: continue from the last checkpoint in `run_dir` (see `rljax.resume`).
      devices: number of devices that train each run together, each with a part of `num_envs`;
        gradients are averaged. None places whole runs on the available devices.
      eval_interval: environment steps between two evaluations during training, each of
        `eval_episodes` greedy episodes in new environments, at the first report after the interval;
        0 for none. The best policy of each run is kept. Training itself does not change.
      stop_at: mean return of an evaluation at which training stops early; None for none.
      stop_by: "median" stops all seeds of a setting when their median reaches `stop_at`, "seed"
        each seed by itself.
      on_report: function of a `RunReport`, called after each report. If it returns True, all runs
        stop; a dict of numbers, or of arrays `[*sweep, seeds]`, is added to the metrics.
      settings: a list of dicts of hyperparameters, one axis of the result. Settings that differ in
        floats are trained in one compiled program; others, such as `num_envs` or `network`, one
        program after another.
      initial_params: parameters to start from: a `Result` or the directory of a run of the same
        networks, with the moments of its observations, or a tree of parameters. It has one run,
        or as many as this one.
      hyperparameters: fields of the agent's config, and pieces of the agent, such as `network=` or
        `optimizer=`. A list for a float field is a sweep, one leading axis of the result.

    Returns:
      The `Result`: learning curves, evaluation and final states, `[*sweep, seeds, ...]`.

    Raises:
      ValueError: an argument is wrong; raised before anything is compiled.
      FloatingPointError: a metric or parameter is NaN or infinite; names it, the step and the run.

    Example:
      >>> import rljax
      >>> run = rljax.train(
      ...     "q_learning", "rljax/Maze", num_seeds=3, learning_rate=[0.1, 0.5],
      ...     total_timesteps=400, num_reports=4, eval_episodes=0, progress=False,
      ... )
      >>> run.returns.shape  # [learning_rate, seed, report]
      (2, 3, 4)
    """
    groups = make_groups(
        agent, env, settings, num_seeds=num_seeds, seed=seed, name=name, num_reports=num_reports,
        env_params=env_params, devices=devices, eval_interval=eval_interval, stop_at=stop_at,
        stop_by=stop_by, **hyperparameters,
    )  # fmt: skip
    return run_groups(
        groups, run_dir, eval_episodes=eval_episodes, progress=progress, writers=writers,
        save_seconds=save_seconds, resume=resume, on_report=on_report,
        initial_params=initial_params,
    )  # fmt: skip


def resume(
    run_dir: str | Path, env: Any = None, agent: Any = None, *, on_report: OnReport | None = None,
    **options: Any,
) -> Result:  # fmt: skip
    """Continues an interrupted run to its end, with the same bits as an uninterrupted run.

    A run that is complete is loaded: nothing is trained, evaluated or compiled.
    With `total_timesteps` it is trained for more steps; a warning names the schedules that change.
    Environments on the host, such as those of gymnasium, cannot be restored: such a run continues
    from a reset, and says so in a warning.

    Args:
      run_dir: the run directory.
      env: the environment, if it is your own object.
      agent: `(config class, maker)`, if it is your own agent.
      on_report: as in `rljax.train`.
      options: the pieces that the run was made with, such as `network=`, and `eval_episodes`,
        `progress`, `writers` and `save_seconds` as in `rljax.train`. Those that are not given keep
        the values of the run, and `progress` its default.

    Returns:
      The `Result` of the whole run.

    Raises:
      ValueError: there is no run, or an option differs from the saved one; each is named; or
        another process trains the run.

    Example:
      >>> import rljax, tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     _ = rljax.train(
      ...         "q_learning", "rljax/Maze", run_dir=f"{directory}/maze", total_timesteps=400,
      ...         num_reports=4, eval_episodes=0, progress=False,
      ...     )
      ...     run = rljax.resume(f"{directory}/maze", progress=False)  # complete: trains no further
      >>> run.returns.shape
      (1, 4)
    """
    how = {name: options.pop(name) for name in RESUMABLE if name in options}
    record = lengthened_record(read_record(run_dir), options)
    groups = groups_from_record(record, env, agent, **options)
    how = recorded_options(directory_of(groups, run_dir, 0), how) | how
    return run_groups(groups, run_dir, resume=True, on_report=on_report, **how)
