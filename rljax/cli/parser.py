"""The words of a command line, split into positional arguments and options.

The values stay strings: `rljax.config.convert` reads them as it reads TOML and Python arguments,
so a mistake has the same error message everywhere.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from rljax.config import suggestion

FLAGS = ("progress", "sample", "best", "first", "about", "distributed")  # options without a value
SHORT = {"-h": "--help", "-o": "--output"}


class Flag(str):
    """The value of an option that was given without one: `--flag` is "true"."""


class Command(NamedTuple):
    """One command of `rljax`.

    Attributes:
      run: `(positionals, options) -> exit code`; None is 0.
      positionals: the arguments before the options, for the usage line.
      about: what the command does, one line.
      options: `name -> help` of its options, with the default in parentheses.
      takes_hyperparameters: it also takes the options of an agent.
    """

    run: Callable[[list[str], dict[str, str]], int | None]
    positionals: str
    about: str
    options: dict[str, str]
    takes_hyperparameters: bool = False


def parse(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Splits words into positional arguments and options.

    Options are `--name value`, `--name=value`, `--flag` (true) or `--no-flag` (false).

    Raises:
      ValueError: a positional argument after an option, an unknown short option, or an option given
        twice.

    Example:
      >>> parse(["ppo", "CartPole-v1", "--num-seeds", "8", "--no-anneal-lr"])
      (['ppo', 'CartPole-v1'], {'num_seeds': '8', 'anneal_lr': 'false'})
    """
    words = [SHORT.get(word, word) for word in words]
    positionals = []
    while words and not words[0].startswith("--"):
        if re.fullmatch("-[a-zA-Z]", words[0]):
            raise ValueError(f"there is no option `{words[0]}`: options are written --name value.")
        positionals.append(words.pop(0))
    options: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"unexpected argument `{word}`: options are written --name value.")
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if not equals and words and not words[0].startswith("--"):
            value = words.pop(0)
        elif not equals and name.startswith("no_"):
            name, value = name.removeprefix("no_"), "false"
        elif not equals:
            value = Flag("true")
        if name in options:
            raise ValueError(f"`--{name.replace('_', '-')}` is given twice: give it once.")
        options[name] = value
    return positionals, options


def unknown(name: str, known: Iterable[str], owner: str, kind: str) -> ValueError:
    """Returns the error for an unknown command or option; it names the nearest known one."""
    return ValueError(f"{owner} has no {kind} `{name}`: {suggestion(name, known)}")


def check_values(options: Mapping[str, str], flags: Iterable[str]) -> None:
    """Checks that only flags, and parameters of environments, are given without a value.

    Raises:
      ValueError: another option has no value.
    """
    for name, value in options.items():
        if isinstance(value, Flag) and name not in flags and not name.startswith("env_params."):
            option = name.replace("_", "-")
            raise ValueError(f"`--{option}` has no value: write --{option} VALUE.")


def expect(positionals: list[str], count: int, command: str, names: str) -> list[str]:
    """Returns the positional arguments, checked to be `count`.

    Raises:
      ValueError: there are more or fewer.
    """
    if len(positionals) != count:
        given = " ".join(positionals) or "none"
        raise ValueError(f"the arguments of `rljax {command}` are {names}, but it got {given}.")
    return positionals
