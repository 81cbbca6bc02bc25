"""The device that programs are compiled for, where their fastest form depends on it."""

import jax


def is_gpu() -> bool:
    """Whether programs are compiled for a GPU.

    There, a loop or a branch whose condition is computed on the device makes the host wait for the
    condition, which takes longer than many small kernels do. On a CPU it costs nothing, and saves
    the work that is not needed.
    """
    return jax.default_backend() == "gpu"
