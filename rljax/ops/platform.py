"""The device that programs are compiled for, where their fastest form depends on it."""

import os

import jax

SMALL_UPDATE = 2048  # steps of an update up to which matrix products are computed on one core


def is_gpu() -> bool:
    """Whether programs are compiled for a GPU.

    There, a loop or a branch whose condition is computed on the device makes the host wait for the
    condition, which takes longer than many small kernels do. On a CPU it costs nothing, and saves
    the work that is not needed.
    """
    return jax.default_backend() == "gpu"


def num_cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
