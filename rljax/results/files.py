"""Saved results."""

import dataclasses
from pathlib import Path

from rljax.results import arrays, storage
from rljax.results.result import Result


def load_result(directory: str | Path) -> Result:
    """Loads a result that `Result.save` wrote, bit for bit, without what it does not save.

    Args:
      directory: a run directory.

    Raises:
      ValueError: there is no result, a file is damaged, or the files are from different runs.

    Example:
      >>> import numpy as np, rljax, tempfile
      >>> metrics = {"charts/episodic_return": np.array([[400.0, 500.0]])}
      >>> steps = np.array([1000, 2000])
      >>> result = rljax.Result("ppo", "CartPole-v1", {"gamma": 0.9}, {}, 1, 0, steps, metrics)
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     loaded = rljax.load_result(result.save(directory))
      >>> loaded.returns
      array([[400., 500.]])
    """
    defaults = {f.name for f in dataclasses.fields(Result) if f.default is not dataclasses.MISSING}
    names = [name for name in arrays.RECORDED if name not in defaults]
    record, loaded = storage.read(directory, names, optional=defaults.intersection(arrays.RECORDED))
    record["diverged"] = tuple(record.get("diverged", ()))
    fields = arrays.by_field(loaded)
    fields["evaluation"] = fields["evaluation"] or None
    fields["best"] = arrays.Best(**fields["best"]) if fields["best"] else None
    return Result(**record, **fields)
