"""Experiments: run a plan in chunks, report, save, evaluate. What `train` and the shell call."""

import dataclasses
import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax import config as configs
from rljax.experiment import checkpoint
from rljax.experiment import writers as reporting
from rljax.experiment.directory import Folder, Rows, listed_rows, rows_of
from rljax.experiment.plan import Plan, at_least, make_plan, plan_of
from rljax.experiment.signals import interruptible
from rljax.results.result import Result
from rljax.training import distributed, parallel, runs
from rljax.training.evaluate import evaluate as play
from rljax.training.learner import Report
from rljax.types import PyTree, params_of

SECONDS_PER_CHUNK = 0.5  # between two looks of the host at the clock and at signals
SMALL = 2048  # steps an update up to which its matrix products are too small to share between cores
EVALUATION = 1_000_003  # folded into a run's key for its evaluation


def train(
    agent: Any, env: Any, *, num_seeds: int = 1, seed: int = 0, run_dir: str | Path | None = None,
    num_reports: int = 50, eval_episodes: int = 100, progress: bool | None = None,
    writers: tuple[str, ...] = ("jsonl",), save_seconds: float = 30.0,
    env_params: Mapping[str, Any] | None = None, resume: bool = False, devices: int | None = None,
    **hyperparameters: Any,
) -> Result:  # fmt: skip
    """Trains an agent, many seeds at once, in one compiled program.

        run = rljax.train("ppo", "CartPole-v1", num_seeds=8, learning_rate=[3e-4, 1e-3])

    Args:
      agent: a name in `rljax.AGENTS`, or your own `(config class, maker)`.
      env: an id (see `rljax list`), a gymnax environment, or an `rljax.Env`.
      num_seeds: number of runs; run i starts from `fold_in(key(seed), i)`, so that more seeds never change
        the earlier ones.
      run_dir: a folder for checkpoints, metrics and the result; None keeps all in memory.
      num_reports: points of the curves; memory does not depend on the steps between them.
      eval_episodes: greedy episodes of each final policy; 0 for none.
      progress: False for silence; a live bar on a terminal, plain lines elsewhere.
      writers: of the metrics, into the folder: "jsonl", "tensorboard", "wandb".
      save_seconds: at least so long between two checkpoints; the last state is always saved.
      env_params: parameters of the environment, `max_episode_steps` among them.
      resume: go on from the last checkpoint in `run_dir` (see `rljax.resume`).
      devices: learn each run on so many devices at once, a worker on each with its part of
        `num_envs`; what they learn is averaged. None spreads whole runs over the devices there are.
      hyperparameters: fields of the agent's config, or pieces of it (`network=`, `optimizer=`,
        `surrogate=`). A list for a float field is an axis of the run.

    Raises:
      ValueError: anything wrong with the arguments, before anything is compiled.
      FloatingPointError: a quantity became NaN or infinite; says which, when, in which run.
    """
    plan = make_plan(
        agent, env, num_seeds=num_seeds, seed=seed, num_reports=num_reports, env_params=env_params,
        devices=devices, **hyperparameters,
    )  # fmt: skip
    return run(
        plan, run_dir, eval_episodes=eval_episodes, progress=progress, writers=writers,
        save_seconds=save_seconds, resume=resume,
    )  # fmt: skip


def resume(run_dir: str | Path, env: Any = None, agent: Any = None, **options: Any) -> Result:
    """Goes on with a run to its end; the bits are those of a run that never stopped.

    Args:
      run_dir: its folder.
      env, agent: the environment and the `(config class, maker)`, where they are your own.
      options: pieces that the run was made with (`network=` ...), and `eval_episodes`, `progress`,
        `writers`, `save_seconds` as for `train`. A hyperparameter must be the one it was made with.

    Raises:
      ValueError: there is no run; or an option is not what it was, each such key is named.
    """
    names = ("eval_episodes", "progress", "writers", "save_seconds")
    how = {name: options.pop(name) for name in names if name in options}
    record = configs.load(Path(run_dir) / "config.toml")
    pieces = {key: value for key, value in options.items() if not _is_plain(value)}
    changed = {key: value for key, value in options.items() if key not in pieces}
    return run(plan_of(record | changed, env, agent, **pieces), run_dir, resume=True, **how)


def _is_plain(value: Any) -> bool:
    """Whether a file can hold it; a named tuple, such as an optimizer is, is not plain."""
    return isinstance(value, (np.ndarray, np.generic)) or type(value) in (
        str, bool, int, float, list, tuple, dict,
    )  # fmt: skip


def run(
    plan: Plan, run_dir: str | Path | None = None, *, eval_episodes: int = 100,
    progress: bool | None = None, writers: tuple[str, ...] = ("jsonl",), save_seconds: float = 30.0,
    resume: bool = False,
) -> Result:  # fmt: skip
    """Runs a plan to its end; the arguments are those of `train`."""
    eval_episodes = at_least("eval_episodes", eval_episodes, 0)
    save_seconds = configs.convert("save_seconds", save_seconds, float)
    writers = (writers,) if isinstance(writers, str) else tuple(writers)
    reporting.check_writers(writers)
    if resume and run_dir is None:
        raise ValueError("`resume` is True, but there is no `run_dir` to resume from: give it.")
    saved = f"saved: rljax resume {run_dir}" if run_dir else "nothing was saved: no `run_dir`"
    with distributed.together(saved):
        return _run(plan, run_dir, eval_episodes, progress, writers, save_seconds, resume)


def _run(
    plan: Plan, run_dir: str | Path | None, eval_episodes: int, progress: bool | None,
    writers: tuple[str, ...], save_seconds: float, resume: bool,
) -> Result:  # fmt: skip
    spread = parallel.spread(plan.num_runs, workers=plan.workers)
    mine = run_dir is not None and distributed.is_first()
    folder = Folder(run_dir, plan.record(), resume) if mine and run_dir is not None else None
    progress = progress if distributed.is_first() else False
    total = plan.config.num_updates * plan.steps_per_update
    bar = reporting.Progress(title(plan), total, progress, num_runs=plan.num_runs)
    with bar, interruptible() as interrupt, ExitStack() as on_exit:
        cache_key = plan.cache_key() and (plan.cache_key(), spread.num_groups)
        work = runs.Runs(
            plan.make_learner(), plan.config, plan.entries(), spread, cache_key,
            one_thread=plan.steps_per_update <= SMALL,
        )  # fmt: skip
        rows, done = restore(folder, work)
        bar.compiled(work.compile_seconds, start=done * plan.steps_per_update)
        sinks = [reporting.writer(name, folder.path, rows) for name in writers] if folder else []
        for sink in sinks:
            on_exit.callback(sink.close)
        began = last_save = time.perf_counter()
        if run_dir and not done:  # finite parameters are on disk whatever comes
            _save(folder, work.snapshot(), rows, 0)
        pace = 1.0  # updates a chunk, found by trying
        for size, is_report in _chunks(plan, done, lambda: pace):
            tick = time.perf_counter()
            distributed.passed()
            report = work.advance(size)
            now = time.perf_counter()
            pace = min(size * SECONDS_PER_CHUNK / max(now - tick, 1e-6), 2 * max(pace, size))
            done += size
            _stop_at_nonfinite(report, plan, folder)
            means = None
            if is_report:
                means = runs.means(report)
                rows.append((done * plan.steps_per_update, means))
                for sink in sinks:
                    sink.write(*rows[-1])
                work.clear_report()
            bar.update(done * plan.steps_per_update, means)
            said = distributed.agree(pace, now - last_save, interrupt.signal)
            pace, since_save, interrupt.signal = *said[0, :2].tolist(), int(said[:, 2].max())
            last = done == plan.config.num_updates
            if run_dir and (last or interrupt.signal or since_save > save_seconds):
                snapshot = work.snapshot()
                _stop_at_nonfinite_params(plan.first_workers(snapshot), done, plan, folder)
                _save(folder, snapshot, rows, done)
                last_save = time.perf_counter()
            if interrupt.signal and not last:
                interrupt.leave(Path(run_dir) if run_dir else None)
        seconds = time.perf_counter() - began
        snapshot = work.snapshot()
        _stop_at_nonfinite_params(plan.first_workers(snapshot), done, plan, folder)
        result = _result(plan, rows, snapshot, work.compile_seconds, seconds)
        if eval_episodes:
            states = plan.first_workers(snapshot.state.agent)
            seen = evaluate_states(plan, states, eval_episodes)
            result = dataclasses.replace(result, evaluation=seen)
        if folder:
            result.save(folder.path)
            result.plot(folder.path / "curve.png")
            folder.describe(title(plan))
    return result


def restore(folder: Folder | None, work: runs.Runs) -> tuple[Rows, int]:
    """Goes on from the last checkpoint, if there is one; the first process reads it for all."""
    if jax.process_count() == 1:
        return folder.restore(work) if folder else ([], 0)
    like = work.snapshot()
    snapshot, rows, done = folder.read(like) if folder else (None, [], 0)
    listed = json.dumps([done, listed_rows(rows)]) if snapshot is not None else None
    told = distributed.text_from_first(listed)
    if told is None:
        return [], 0
    work.put_back(distributed.from_first(like if snapshot is None else snapshot))
    done, listed = json.loads(told)
    return rows_of(listed), done


def _save(folder: Folder | None, snapshot: runs.Work, rows: Rows, done: int) -> None:
    if folder:
        folder.save(snapshot, rows, done)


def title(plan: Plan) -> str:
    """`ppo CartPole-v1 · 8 seeds · cpu`."""
    noun = (
        f"{plan.num_runs} runs"
        if plan.sweep
        else f"{plan.num_seeds} seed{'s' * (plan.num_seeds > 1)}"
    )
    return f"{plan.agent} {plan.env_id} · {noun} · {jax.default_backend()}"


def _chunks(plan: Plan, done: int, pace):
    """Sizes of chunks that end at the reports, whatever the pace: `(updates, ends a report)`."""
    num_updates = plan.config.num_updates
    ends = np.unique(np.linspace(0, num_updates, plan.num_reports + 1).round().astype(int))[1:]
    while done < num_updates:
        end = int(ends[np.searchsorted(ends, done, side="right")])
        size = min(end - done, max(1, int(pace())))
        done += size
        yield size, done == end


def run_name(plan: Plan, index: int) -> str:
    """Which run of the sweep and seeds: `seed 3`, `learning_rate 0.01, seed 3`."""
    *place, seed = np.unravel_index(index, plan.lead)
    swept = [
        f"{name} {values[i]:g}" for (name, values), i in zip(plan.sweep.items(), place, strict=True)
    ]
    return ", ".join([*swept, f"seed {seed}"])


def _diverged(plan: Plan, what: str, update: int, index: int, folder: Folder | None):
    step = (update + 1) * plan.steps_per_update
    kept = f"the last checkpoint in {folder.path} is finite" if folder else "nothing was saved"
    return FloatingPointError(
        f"`{what}` became NaN or infinite at step {step} (update {update + 1}) of "
        f"{run_name(plan, index)}; {kept}. Lower `learning_rate` or `max_grad_norm`, or look at "
        "the rewards of the environment."
    )


def _stop_at_nonfinite(report: Report, plan: Plan, folder: Folder | None) -> None:
    if found := runs.first_nonfinite(report):
        update, index, name = found
        raise _diverged(plan, name, update, index, folder)


def _stop_at_nonfinite_params(work: runs.Work, done: int, plan: Plan, folder: Folder | None):
    """The loss of an update shows the parameters before it; the last ones show in none."""
    params = params_of(work.state.agent)
    for place, leaf in jax.tree_util.tree_leaves_with_path(params):
        finite = np.isfinite(np.asarray(leaf)).reshape(plan.num_runs, -1).all(axis=1)
        if not finite.all():
            what = f"params{jax.tree_util.keystr(place)}"
            raise _diverged(plan, what, done - 1, int(finite.argmin()), folder)


def _result(
    plan: Plan, rows: Rows, work: runs.Work, compile_seconds: float, seconds: float
) -> Result:
    def unflat(x):
        return x.reshape(*plan.lead, *x.shape[1:])

    names = rows[0][1] if rows else ()
    state = jax.tree.map(unflat, plan.first_workers(work.state))
    return Result(
        agent=plan.agent, env_id=plan.env_id, config=plan.record(), sweep=plan.sweep,
        num_seeds=plan.num_seeds, seed=plan.seed, steps=np.array([step for step, _ in rows], np.int64),
        metrics={
            name: unflat(np.stack([row[name] for _, row in rows], axis=-1)) for name in names
        },
        state=state, params=params_of(state.agent), compile_seconds=compile_seconds,
        seconds=seconds,
    )  # fmt: skip


def evaluate_states(
    plan: Plan,
    states: PyTree,
    num_episodes: int = 100,
    seed: int | None = None,
    greedy: bool = True,
) -> dict[str, np.ndarray]:
    """Plays `num_episodes` episodes with each agent state `[R, ...]`, none of them moved.

    Returns: "returns", "lengths" `[*sweep, seeds, episodes]`, and "unfinished" `[*sweep, seeds]`,
    how many a limit of steps cut before the environment ended them.
    """
    env = plan.build_env(num_episodes)
    spread = parallel.spread(plan.num_runs)
    width = -(-spread.num_runs // spread.num_groups)
    start = (plan if seed is None else plan._replace(seed=seed)).starts()
    keys = jax.vmap(jax.random.fold_in, (0, None))(start.key, EVALUATION)

    def one(share, config):
        state, key, swept = share
        agent = plan.make_agent(dataclasses.replace(config, **swept), env)
        return play(agent, env, state, key, greedy=greedy)

    grouped = spread.split((states, keys, start.swept))
    call = spread.compile(runs.over_runs(one, width), grouped, plan.config)
    seen = jax.device_get(spread.join(call(grouped, plan.config)))
    return {
        "returns": seen.returns.reshape(*plan.lead, -1),
        "lengths": seen.lengths.reshape(*plan.lead, -1),
        "unfinished": (~seen.finished).sum(axis=(-1, -2)).reshape(plan.lead),
    }


def load_states(run_dir: str | Path, env: Any = None, **pieces: Any) -> tuple[Plan, PyTree]:
    """The plan of a run and the train states `[R, ...]` of its last good checkpoint.

    Raises:
      ValueError: there is no run, no checkpoint yet, or none that is whole.
    """
    plan = plan_of(configs.load(Path(run_dir) / "config.toml"), env, **pieces)
    like = runs.template(plan.make_learner(), plan.config, plan.entries())
    found = checkpoint.restore(Path(run_dir) / "checkpoint", like, plan.record())
    if found is None:
        raise ValueError(f"there is no checkpoint in {run_dir} yet: resume the run first.")
    return plan, plan.first_workers(found[0].state)


def evaluate(
    run: Result | str | Path, num_episodes: int = 100, *, seed: int | None = None,
    greedy: bool = True, env: Any = None, **pieces: Any,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Evaluates the policies of a run: fresh environments, the first episode of each.

    Args:
      run: a `Result` of `train`, or a run's folder.
      num_episodes: of each policy.
      seed: of the environments; None takes that of the run (its own stream, not training's).
      greedy: the policy's mode; False samples from it.
      env, pieces: where they are your own, as for `train`; `agent=` likewise.

    Returns: "returns", "lengths" `[*sweep, seeds, num_episodes]`, "unfinished" `[*sweep, seeds]`.
    """
    num_episodes = at_least("num_episodes", num_episodes, 1)
    if isinstance(run, Result):
        if run.state is None:
            raise ValueError("this result was read from files: give the folder of its run instead.")
        plan = plan_of(run.config, env, **pieces)
        states = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(plan.lead) :]), run.state.agent)
    else:
        plan, state = load_states(run, env, **pieces)
        states = state.agent
    return evaluate_states(plan, states, num_episodes, seed, greedy)
