"""Help pages, wrapped at word boundaries to the width of the terminal."""

import dataclasses
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rljax.cli.parser import Command, unknown

ABOUT = "rljax: reinforcement learning research on JAX"
EXAMPLES = {
    "8 independent seeds, trained side by side": "rljax train ppo CartPole-v1 --num-seeds 8",
    "the tuned settings of a pair": "rljax train ppo Pendulum-v1 --config tuned",
    "3 learning rates in one compiled program": (
        "rljax train ppo CartPole-v1 --learning-rate 1e-4,3e-4,1e-3"
    ),
    "the options of an agent": "rljax train ppo --help",
    "all agents and environments": "rljax list",
}


def width() -> int:
    """Returns the width of the terminal (COLUMNS, if set), between 20 and 100."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, 20), 100)


def wrap(text: str, indent: str = "", hanging: str | None = None) -> str:
    """Wraps a text at word boundaries; lines after the first are indented by `hanging`."""
    return textwrap.fill(
        text, width(), initial_indent=indent, subsequent_indent=hanging or indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def text_column(names: Iterable[str]) -> int:
    """Returns the column where texts start in `two_columns`, so that lists can share it."""
    return min(max(map(len, names)) + 4, width() // 2)


def two_columns(rows: Mapping[str, str], column: int | None = None) -> str:
    """Returns names on the left and their wrapped, aligned texts on the right."""
    column = column or text_column(rows)
    lines = []
    for name, text in rows.items():
        start = f"  {name}".ljust(column)
        if len(start) > column or not start.endswith("  "):  # too long: the text starts below
            lines.append(start.rstrip())
            start = " " * column
        lines.append(wrap(text, start, " " * column))
    return "\n".join(lines)


def in_columns(names: Sequence[str]) -> str:
    """Returns names in as many columns as fit; they run down the columns."""
    size = max(map(len, names)) + 2
    count = max(1, width() // size)
    height = -(-len(names) // count)
    lines = ["".join(f"  {name}".ljust(size) for name in names[i::height]) for i in range(height)]
    return "\n".join(line.rstrip() for line in lines)


def overview(commands: Mapping[str, Command]) -> str:
    """Returns the page of `rljax --help`."""
    rows = {f"{name} {command.positionals}": command.about for name, command in commands.items()}
    examples = (f"  {text}:\n    {command}" for text, command in EXAMPLES.items())
    return "\n".join([
        ABOUT, "", "usage: rljax COMMAND ... [--option value ...]",
        "", "commands:", two_columns(rows), "", "examples:", *examples,
        "", wrap("`rljax COMMAND --help` shows the options of a command."),
        wrap("Compiled programs are cached on disk: RLJAX_CACHE=off or a directory changes that."),
    ])  # fmt: skip


def command_page(
    name: str, command: Command, agent: str | None = None, env_id: str | None = None
) -> str:
    """Returns the page of `rljax COMMAND --help`, or of `rljax train AGENT ENV --help`.

    Raises:
      ValueError: an unknown agent or environment.
    """
    usages = [f"rljax {name} {form}".strip() for form in command.positionals.split(" | ")]
    tail = " [--option value ...]"
    lines = [f"usage: {usages[0]}{tail}", *(f"       {usage}{tail}" for usage in usages[1:])]
    lines += ["", wrap(f"{command.about[0].upper()}{command.about[1:]}.")]
    rows = {flag(option): text for option, text in command.options.items()}
    fields = _hyperparameters(agent) if command.takes_hyperparameters and agent else {}
    params = _parameters(env_id) if env_id else {}
    column = text_column([*rows, *fields]) if rows else None
    if rows:
        lines += ["", "options:", two_columns(rows, column)]
    if fields:
        note = "A list of values for a decimal option, such as 1e-4,3e-4, trains all of them in one"
        lines += ["", f"options of {agent}:", two_columns(fields, column)]
        lines += ["", wrap(f"{note} compiled program.")]
    if params:
        lines += ["", f"parameters of {env_id}:", two_columns(params)]
    elif fields:
        note = f"`rljax train {agent} ENV --help` shows the parameters of an environment as well."
        lines += ["", wrap(note)]
    elif name == "train":
        note = "`rljax train AGENT --help` shows the options of an agent as well, and `rljax list`"
        lines += ["", wrap(f"{note} shows all agents.")]
    return "\n".join(lines)


def _hyperparameters(agent: str) -> dict[str, str]:
    """Returns the options of an agent and their help texts."""
    from rljax.agents import AGENTS

    if agent not in AGENTS:
        raise unknown(agent, AGENTS, "rljax", "agent")
    fields = dataclasses.fields(AGENTS[agent].config)
    return {
        flag(f"[no_]{field.name}" if isinstance(field.default, bool) else field.name): (
            field_help(field)
        )
        for field in fields
    }


def _parameters(env_id: str) -> dict[str, str]:
    """Returns the options for the parameters of an environment, and their defaults."""
    from rljax import envs

    rows = {}
    for name, default in envs.parameters(env_id).items():
        text = "time limit of an episode" if name == "max_episode_steps" else ""
        rows[f"--env-params.{name}"] = with_default(text, default).strip()
    return rows


def field_help(field: dataclasses.Field[Any]) -> str:
    """Returns the help of a config field with its choices and its default."""
    choices = field.metadata.get("choices")
    listed = f"; one of {', '.join(choices)}" if choices else ""
    return with_default(field.metadata.get("help", "") + listed, field.default)


def with_default(text: str, default: Any) -> str:
    """Returns a help text with its default in parentheses, as it is written on the command line.

    Example:
      >>> with_default("sizes of the hidden layers", (64, 64))
      'sizes of the hidden layers (64,64)'
    """
    if isinstance(default, tuple):
        default = ",".join(map(str, default)) or "none"
    if isinstance(default, bool):
        default = str(default).lower()
    return text if default is None else f"{text} ({default})"


def flag(name: str) -> str:
    """Returns an option as it is written on the command line: `--num-seeds`."""
    return "--" + name.replace("_", "-")
