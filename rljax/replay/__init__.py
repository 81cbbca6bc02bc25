"""Experience replay: buffers of transitions as pure functions over one explicit state."""

from rljax.replay.buffers import prioritized, uniform
from rljax.replay.checks import check_memory, check_replay
from rljax.replay.mixed import mixed
from rljax.replay.n_step import n_step, n_step_items
from rljax.replay.rank import rank_based
from rljax.replay.sequences import sequence_priority, sequences

__all__ = [
    "check_memory", "check_replay", "mixed", "n_step", "n_step_items", "prioritized", "rank_based",
    "sequence_priority", "sequences", "uniform",
]  # fmt: skip
