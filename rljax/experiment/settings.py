"""A list of settings: `train(..., settings=[{"learning_rate": 1e-3, "clip_eps": 0.1}, {...}])`.

Settings that differ in floats share one compiled program. Those that differ in other options, such
as `num_envs` or `network`, are trained one program after another.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from rljax import config as configs
from rljax.agents import AgentRow
from rljax.experiment.hyperparameters import split_hyperparameters

AXIS = "setting"  # name of the axis of a list of settings in `Plan.sweep`


class Setting(NamedTuple):
    """One checked setting.

    Attributes:
      shown: its options as plain values, of a piece the name of its class or function.
      floats: values of the fields that the compiled program takes as arguments.
      static: values of the other fields.
      pieces: arguments of the maker that are no fields, such as `network`.
    """

    shown: dict[str, Any]
    floats: dict[str, float]
    static: dict[str, Any]
    pieces: dict[str, Any]

    def complete(self) -> dict[str, Any]:
        """Returns all its options; None for a piece that is the default one."""
        return dict.fromkeys(self.shown) | self.floats | self.static | self.pieces


def checked_settings(
    agent: str, row: AgentRow, settings: Any, shared: Mapping[str, Any], given: Collection[str]
) -> list[Setting]:
    """Returns a list of settings in their types. Each has a value for every name in the list.

    Args:
      agent: name of the agent.
      row: its config class and maker.
      settings: a list of dicts of hyperparameters.
      shared: values of the fields that all settings share.
      given: names of all hyperparameters that are given beside the list.

    Raises:
      ValueError: it is no list of dicts, a name is unknown or given twice, or a value is wrong.
    """
    is_list = isinstance(settings, (list, tuple)) and len(settings) > 0
    if not is_list or not all(isinstance(setting, Mapping) for setting in settings):
        raise ValueError(
            f"`settings` is {configs.shown(settings)}, but it must be a list of dicts, such as "
            '[{"learning_rate": 1e-3}, {"learning_rate": 1e-4}].'
        )
    names = list(dict.fromkeys(name for setting in settings for name in setting))
    if "total_timesteps" in names:
        raise ValueError(
            "`settings` contains `total_timesteps`, but all settings are trained for equally many "
            "steps: pass it as an argument of its own."
        )
    if twice := [name for name in names if name in given]:
        raise ValueError(f"`{twice[0]}` is in `settings` and is also given itself: leave one out.")
    return [_checked(agent, row, setting, names, shared) for setting in settings]


def groups(settings: list[Setting]) -> list[list[int]]:
    """Returns the indices of the settings of each compiled program, in the order of their first."""
    found: dict[Any, list[int]] = {}
    for i, setting in enumerate(settings):
        pieces = sorted((name, id(piece)) for name, piece in setting.pieces.items())
        found.setdefault((str(sorted(setting.static.items())), str(pieces)), []).append(i)
    return list(found.values())


def _checked(
    agent: str, row: AgentRow, setting: Mapping[str, Any], names: list[str],
    shared: Mapping[str, Any],
) -> Setting:  # fmt: skip
    values, swept, pieces = split_hyperparameters(agent, row, setting)
    if swept:
        name = next(iter(swept))
        raise ValueError(
            f"`settings` contains `{name}` = {configs.shown(setting[name])}, but a setting has one "
            f"value of each option: pass `{name}` beside `settings` to combine it with all of them."
        )
    fields = configs.to_mapping(configs.from_mapping(row.config, {**shared, **values}))
    types = configs.field_types(row.config)
    floats = {name: fields[name] for name in names if types.get(name) is float}
    static = {name: fields[name] for name in names if name in types and name not in floats}
    shown = {
        name: _name_of(pieces[name]) if name in pieces else fields.get(name, "default")
        for name in names
    }
    return Setting(shown, floats, static, pieces)


def _name_of(piece: Any) -> str:
    return getattr(piece, "__name__", type(piece).__name__)
