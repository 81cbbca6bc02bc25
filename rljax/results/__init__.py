"""Results of runs: storage, statistics and figures. Importing this imports no JAX."""

from rljax.results.result import Result, compare, load_result, plot_results

__all__ = ["Result", "compare", "load_result", "plot_results"]
