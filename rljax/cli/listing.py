"""`rljax list`: the agents by family, the environments by suite, and the runs in a directory."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rljax.cli.help import in_columns, text_column, two_columns, width, wrap


def agents_and_environments() -> str:
    """Returns the agents by family with a line each, then the environments by suite."""
    from rljax import envs
    from rljax.agents import AGENTS, about

    column = text_column(AGENTS)
    sections = [
        f"{heading}\n{two_columns({name: row.about for name, row in rows.items()}, column)}"
        for heading, rows in about.groups().items()
    ]
    sections += [environments(suite) for suite in envs.ALWAYS_THERE]
    rows = {}
    for name, suite in envs.SUITES.items():
        if suite.extra:
            install = f"pip install '{suite.requirement}'"
            command = f"rljax list {name}" if envs.is_installed(name) else install
            rows[name] = f"{suite.about}: {command}"
    sections.append(f"Further suites of environments\n{two_columns(rows, text_column(rows))}")
    sections.append(
        wrap(
            "`rljax train AGENT --help` shows the options of an agent, `rljax list --about` the "
            "properties of all agents."
        )
    )
    return "\n\n".join(sections)


def environments(suite: str) -> str:
    """Returns the ids of a suite, in columns.

    Raises:
      ValueError: there is no such suite, it is not installed, or it is a directory without runs.
    """
    from rljax import envs

    if suite not in envs.SUITES and Path(suite).is_dir():
        raise ValueError(f"there is no run in {suite}: give a directory of runs, or a suite.")
    return f"Environments: {suite}\n{in_columns(envs.environment_ids(suite))}"


def properties() -> str:
    """Returns the table of `rljax list --about`, as wide as the terminal."""
    from rljax.agents import about

    return about.text_table(width())


class RunRow(NamedTuple):
    """One run in the table of `rljax list RUNS_DIR`; texts, and the return to sort by."""

    name: str
    agent: str
    env_id: str
    seeds: str
    steps: str
    returns: str
    seconds: str
    state: str
    score: float


RUN_HEADINGS = ("run", "agent", "environment", "seeds", "steps", "return", "seconds", "state")


def holds_runs(path: str) -> bool:
    """Whether a path is the directory of a run, or contains one."""
    directory = Path(path)
    return directory.is_dir() and (
        _is_run(directory) or any(map(_is_run, filter(Path.is_dir, directory.iterdir())))
    )


def runs(paths: Sequence[str]) -> str:
    """Returns a table of the runs in directories, by environment and return. It needs no JAX.

    Directories that are no runs, or are damaged, are named below it.

    Args:
      paths: directories of runs, or directories that contain such directories.
    """
    rows, foreign, damaged = [], [], []
    for directory in _children(paths):
        if not _is_run(directory):
            foreign.append(str(directory))
            continue
        try:
            rows.append(_run_row(directory))
        except (ValueError, OSError, KeyError, TypeError) as error:
            damaged.append(f"skipped: {error}")
    rows.sort(key=lambda row: (row.env_id, math.isnan(row.score), -row.score, row.name))
    cells = [RUN_HEADINGS, *(row[:-1] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells] if rows else []
    note = "return: interquartile mean over seeds [95 % interval] of the last training episodes"
    lines += ["", wrap(f"{note}; of a sweep that of the best setting.")] if rows else []
    lines += [wrap(f"not a run: {', '.join(foreign)}", hanging="  ")] if foreign else []
    return "\n".join([*lines, *(wrap(text, hanging="  ") for text in damaged)])


def _children(paths: Sequence[str]) -> list[Path]:
    """Returns the directories of runs among paths, and those inside the other paths."""
    found = []
    for path in map(Path, paths):
        inside = [] if _is_run(path) or not path.is_dir() else filter(Path.is_dir, path.iterdir())
        found += sorted(inside) or [path]
    return found


def _is_run(directory: Path) -> bool:
    return any((directory / file).is_file() for file in ("config.toml", "result.json"))


def _run_row(directory: Path) -> RunRow:
    """Returns the row of a run, complete or not.

    Raises:
      ValueError: a file is damaged.
    """
    from rljax.results import figures, load_result, statistics, storage, texts

    if not (directory / storage.RECORD).is_file():
        return _unfinished_row(directory)
    run = load_result(directory)
    returns, score = "-", math.nan
    if figures.EPISODIC_RETURN in run.metrics:
        scores = run.scores(evaluated=False)[run.ranking()[0]]
        returns, score = statistics.describe(scores), float(statistics.iqm(scores))
    steps = texts.human(float(max(run.steps, default=0)))
    return RunRow(
        directory.name, run.label, run.env_id, _seeds(run.num_seeds, len(run.settings)), steps,
        returns, f"{run.seconds:.0f}", "complete", score,
    )  # fmt: skip


def _unfinished_row(directory: Path) -> RunRow:
    """Returns the row of a run without a result, from its configuration and its metrics."""
    from rljax.config import load
    from rljax.experiment.json_lines import read_json_lines
    from rljax.results import figures, statistics, texts

    record = load(directory / "config.toml")
    num_seeds, total = int(record["num_seeds"]), float(record["total_timesteps"])
    rows = []
    if (directory / "metrics.jsonl").is_file():
        with warnings.catch_warnings():  # an incomplete last line is the mark of a killed run
            warnings.simplefilter("ignore")
            rows = read_json_lines(directory / "metrics.jsonl")
    step, metrics = rows[-1] if rows else (0, {})
    returns, score, num_settings = "-", math.nan, 1
    if figures.EPISODIC_RETURN in metrics:
        of_settings = metrics[figures.EPISODIC_RETURN].reshape(-1, num_seeds)
        num_settings = len(of_settings)
        scores = of_settings[statistics.ranking(of_settings)[0]]
        returns, score = statistics.describe(scores), float(statistics.iqm(scores))
    return RunRow(
        directory.name, record.get("name") or record["agent"], record["env_id"],
        _seeds(num_seeds, num_settings), texts.human(total), returns, "-",
        f"unfinished at {texts.human(step)} steps", score,
    )  # fmt: skip


def _seeds(num_seeds: int, num_settings: int) -> str:
    return str(num_seeds) if num_settings == 1 else f"{num_seeds} x {num_settings} settings"
