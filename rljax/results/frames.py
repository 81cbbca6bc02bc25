"""Results as tidy pandas frames. pandas is imported when the first frame is made."""

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rljax.results.pools import Runs
    from rljax.results.result import Result


def frame(results: "Runs") -> Any:
    """Returns the frames of several results in one, `Result.frame` below each other.

    The columns "name" and "env_id" come first. A field or metric that a result lacks is NaN.

    Args:
      results: results, or the directories they were saved in; or a mapping of a name for each.

    Raises:
      ValueError: pandas is not installed, there are no results, or one cannot be loaded.
    """
    from rljax.results import pools

    frames = []
    for result in pools.load(results):
        one = of_result(result)
        one.insert(0, "name", result.label)
        one.insert(1, "env_id", result.env_id)
        frames.append(one)
    return _pandas().concat(frames, ignore_index=True)


def of_result(result: "Result") -> Any:
    """Returns the frame of `Result.frame`."""
    pandas = _pandas()
    steps, lead = np.asarray(result.steps), (len(result.settings), result.num_seeds)
    setting, seed, report = (
        index.reshape(-1) for index in np.indices((*lead, steps.size), dtype=np.intp)
    )
    fields = dict.fromkeys(field for values in result.settings for field in values)
    columns: dict[str, Any] = {}
    for field in fields:
        values = pandas.Series([_hashable(values.get(field)) for values in result.settings])
        columns[field] = values.take(setting).to_numpy()
    columns |= {"seed": seed, "step": steps[report]}
    for name, values in result.metrics.items():
        columns[name] = np.asarray(values).reshape(-1)
    return pandas.DataFrame(columns)


def _hashable(value: Any) -> Any:
    """Returns a list as a tuple, so that a frame can be grouped by it."""
    return tuple(value) if isinstance(value, list) else value


def _pandas() -> Any:
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise ValueError(
            f"a frame needs the package pandas, which cannot be imported ({error}): "
            'pip install "rljax-research[frames]".'
        ) from None
