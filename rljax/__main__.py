"""The command line: `rljax train ppo CartPole-v1 --num-seeds 8`, or `python -m rljax ...`."""

import os
import sys
from collections.abc import Sequence

from rljax.cli import commands, help, parser
from rljax.experiment import signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      arguments: the words after `rljax`; None takes those of the process.

    Returns:
      The exit code: 0 success; 1 NaN or infinity in training, or a fault that `check-env` found;
      2 wrong arguments; 74 a file cannot be read or written; 75 another process of the run is
      lost; 130 Ctrl-C. SIGTERM raises SystemExit with code 143.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with signals.interruptible():
            return _run(words) or 0
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has closed the pipe, as in `rljax list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        text = str(error) if error.errno is None else f"{error.filename}: {error.strerror}"
        print(f"error: {text}", file=sys.stderr)
        return 74
    return 0


def _run(words: list[str]) -> int | None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(help.overview(commands.COMMANDS))
        return None
    if words[0] == "--version":
        from rljax import __version__

        print(__version__)
        return None
    name, command = words[0], commands.COMMANDS.get(words[0])
    if command is None:
        raise parser.unknown(name, commands.COMMANDS, "rljax", "command")
    positionals, options = parser.parse(words[1:])
    if "help" in options:
        named = name == "train" and positionals and not positionals[0].endswith(".toml")
        print(help.command_page(name, command, *(positionals[:2] if named else ())))
        return None
    if not command.takes_hyperparameters:
        for option in options:
            if option not in command.options and not _is_env_param(option, command):
                raise parser.unknown(option, command.options, f"`rljax {name}`", "option")
        parser.check_values(options, parser.FLAGS)
    return command.run(positionals, options)


def _is_env_param(option: str, command: parser.Command) -> bool:
    return option.startswith("env_params.") and "env_params.NAME" in command.options


if __name__ == "__main__":
    sys.exit(main())
