"""TOML files of options: `load` reads one, `dump` writes one."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def load(path: str | Path) -> dict[str, Any]:
    """Reads a TOML file with `agent`, `env_id` and the options of a run at its top level.

    Raises:
      ValueError: the file is missing, or is not TOML; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give the path of a TOML file.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}.") from None


def dump(values: Mapping[str, Any]) -> str:
    """Returns a mapping as TOML text; `load` reads equal values back.

    Example:
      >>> dump({"agent": "ppo", "gamma": 0.9, "hidden_sizes": (64, 64)})
      'agent = "ppo"\\ngamma = 0.9\\nhidden_sizes = [64, 64]\\n'
    """
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value):
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, str):  # JSON's escapes are TOML's, except that TOML also escapes DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return str(value)
