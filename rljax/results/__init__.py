"""Results of runs: storage, statistics and figures. Importing this does not import JAX."""

from rljax.results.comparison import compare, plot_results
from rljax.results.files import load_result
from rljax.results.frames import frame
from rljax.results.report import report
from rljax.results.result import Result

__all__ = ["Result", "compare", "frame", "load_result", "plot_results", "report"]
