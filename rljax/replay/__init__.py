"""Experience replay: rings of items in the state of an agent, and how they are drawn from."""

from rljax.replay.buffers import prioritized, uniform
from rljax.replay.n_step import n_step, n_step_items
from rljax.replay.rank import rank_based
from rljax.replay.ring import check_memory

__all__ = ["check_memory", "n_step", "n_step_items", "prioritized", "rank_based", "uniform"]
