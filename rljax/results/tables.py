"""The final scores of a result as a table, in text or in HTML."""

import base64
import html
import io
from typing import TYPE_CHECKING

import numpy as np

from rljax.results import figures, health, statistics, texts

if TYPE_CHECKING:
    from rljax.results.result import Result

MAX_NAMED = 5  # diverged or failed runs named in a summary
MAX_ROWS = 30  # settings in the table of a sweep
CELL = "text-align:left; padding:2px 12px 2px 0"


def summary(result: "Result") -> str:
    """Returns the table of `Result.summary`."""
    columns, notes = _columns(result), _notes(result)
    if result.sweep:
        rows = [list(columns), *zip(*columns.values(), strict=True)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).strip() for row in rows]
    else:
        cells = [f"{name} {cells[0]}" for name, cells in columns.items()]
        lines = ["  ".join(part) for part in (cells[:2], cells[2:]) if part]
    return "\n".join([_title(result), *(f"  {line}" for line in (*lines, *notes))])


def line(result: "Result") -> str:
    """Returns the text of `repr(result)`."""
    parts = [result.title, f"{texts.human(float(np.max(result.steps, initial=0)))} steps"]
    parts += [f"{name} x {len(values)}" for name, values in result.sweep.items()]
    if not result.sweep and figures.EPISODIC_RETURN in result.metrics:
        parts.append(f"return {statistics.describe(result.scores(evaluated=False)[0])}")
    return f"<Result {' · '.join(parts)}>"


def page(result: "Result") -> str:
    """Returns the table and the learning curve as HTML, for notebooks."""
    columns = _columns(result)
    head = "".join(f'<th style="{CELL}">{html.escape(name)}</th>' for name in columns)
    rows = ["".join(map(_cell, row)) for row in zip(*columns.values(), strict=True)]
    table = f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    parts = [f"<b>{html.escape(_title(result))}</b>", table if columns else ""]
    parts += [f"<div><small>{html.escape(note)}</small></div>" for note in _notes(result)]
    return f"<div>{''.join(parts)}{_image(result)}</div>"


def _cell(text: str) -> str:
    return f'<td style="{CELL}">{html.escape(text)}</td>'


def _image(result: "Result") -> str:
    """Returns the learning curve as an image in HTML; "" for a result without returns."""
    if figures.EPISODIC_RETURN not in result.metrics or not np.size(result.steps):
        return ""
    figure, buffer = result.plot(), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    data = base64.b64encode(buffer.getvalue()).decode()
    style = f"width:{round(96 * figure.get_figwidth())}px; max-width:100%"
    return f'<img alt="learning curve" style="{style}" src="data:image/png;base64,{data}">'


def _title(result: "Result") -> str:
    steps = texts.human(float(np.max(result.steps, initial=0)))
    time = f"{steps} steps in {result.seconds:.1f} s, compiled in {result.compile_seconds:.1f} s"
    return f"{result.title} · {time}"


def _columns(result: "Result") -> dict[str, list[str]]:
    """Returns the cells of each column by heading, one for each setting, best first."""
    settings, order = result.settings, result.ranking()[:MAX_ROWS]
    fields = dict.fromkeys(field for setting in settings for field in setting)
    columns = {
        field: [texts.value(s[field]) if field in s else "" for s in settings] for field in fields
    }
    if figures.EPISODIC_RETURN in result.metrics:
        columns["return"] = [statistics.describe(scores) for scores in result.scores(False)]
    if result.evaluation is not None:
        columns["evaluation"] = _evaluations(result)
    if result.best is not None:
        step = np.asarray(result.best.step).reshape(-1, result.num_seeds)
        returns = statistics.present_mean(result.best.returns, -1).reshape(step.shape)
        columns["best"] = [
            f"{statistics.describe(scores)} at {texts.human_range(at)} steps"
            for scores, at in zip(returns, step, strict=True)
        ]
    if result.stopped is not None:
        stopped = np.asarray(result.stopped).reshape(-1, result.num_seeds)
        columns["stopped"] = [_stopped(steps) for steps in stopped]
    return {name: [cells[i] for i in order] for name, cells in columns.items()}


def _evaluations(result: "Result") -> list[str]:
    """Returns the scores of the final evaluation; without a sweep with the number of episodes."""
    evaluation = result.evaluation or {}
    episodes = int(np.shape(evaluation["returns"])[-1]) * result.num_seeds
    unfinished = np.asarray(evaluation["unfinished"]).reshape(-1, result.num_seeds).sum(-1)
    cells = []
    for scores, number in zip(result.scores(True), unfinished, strict=True):
        notes = [] if result.sweep else [f"{episodes:,} episodes"]
        notes += [f"{number} unfinished"] if number else []
        cells.append(statistics.describe(scores) + (f" ({', '.join(notes)})" if notes else ""))
    return cells


def _stopped(steps: np.ndarray) -> str:
    """Returns such as "at 45k to 80k steps, 8 of 8 seeds"."""
    number = int((~np.isnan(steps)).sum())
    at = f"at {texts.human_range(steps)} steps, " if number else ""
    return f"{at}{number} of {texts.count(len(steps), 'seed')}"


def _notes(result: "Result") -> list[str]:
    """Returns what the columns of a sweep are, and the runs that diverged or failed to learn."""
    notes = []
    if result.sweep:
        seeds = texts.count(result.num_seeds, "seed")
        notes.append(f"interquartile mean over {seeds} [95 % interval], best setting first")
    if (more := len(result.settings) - MAX_ROWS) > 0:
        notes[-1] += f"; {texts.count(more, 'more setting')} in `run.frame()`"
    for run in result.diverged[:MAX_NAMED]:
        notes.append(f"diverged: {run['title']} at step {run['step']:,} ({run['name']})")
    if (more := len(result.diverged) - MAX_NAMED) > 0:
        notes.append(f"diverged: {texts.count(more, 'more run')}")
    return [*notes, *_signs(result)]


def _signs(result: "Result") -> list[str]:
    """Returns the signs of failed learning, one line for all seeds that show the same."""
    seeds: dict[str, list[int]] = {}
    for sign in health.health(result):
        text = ": ".join(filter(None, (texts.setting(sign["setting"]), sign["text"])))
        seeds.setdefault(text, []).append(sign["seed"])
    lines = [
        f"seed{'s' if len(of) > 1 else ''} {', '.join(map(str, of))}: {text}"
        for text, of in seeds.items()
    ]
    if (more := len(lines) - MAX_NAMED) > 0:
        lines[MAX_NAMED:] = [f"{texts.count(more, 'more sign')} of failed learning: run.health()"]
    return lines
