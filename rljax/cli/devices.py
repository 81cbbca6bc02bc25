"""The devices and processes of a run, set up before JAX starts."""

import os
from typing import Any

from rljax.config import at_least, check_range, convert

MAX_DEVICES = 65_536
OPTIONS = {
    "distributed": "join the processes of a cluster manager, such as SLURM (false)",
    "coordinator": "host:port of process 0; needed only outside a cluster manager",
    "num_processes": "number of processes; needed only with --coordinator",
    "process_id": "index of this process; needed only with --coordinator",
    "wait_seconds": "time limit for the processes to connect, in seconds (300)",
}


def set_up(options: dict[str, str], devices: Any) -> bool:
    """Simulates the devices on a CPU if needed, and joins the other processes of the run.

    Args:
      options: the options of the command line; those in `OPTIONS` are removed.
      devices: number of devices that train each run together, or None.

    Returns:
      Whether this is the process that writes and prints.

    Raises:
      ValueError: a number of processes without the address of process 0.
    """
    address = options.pop("coordinator", None)
    num_processes, process_id = (
        convert(name, options.pop(name), int) if name in options else None
        for name in ("num_processes", "process_id")
    )
    limit = options.pop("wait_seconds", None)
    wait_seconds = 300.0 if limit is None else convert("wait_seconds", limit, float)
    check_range("wait_seconds", wait_seconds, above=0)
    several = convert("distributed", options.pop("distributed", "false"), bool) or bool(address)
    if not several and (num_processes is not None or process_id is not None):
        raise ValueError(
            "`num_processes` and `process_id` need `coordinator`: give host:port of process 0."
        )
    if not several and limit is not None:
        raise ValueError(
            f"`wait_seconds` is {limit}, but this is a run on one process: leave it out."
        )
    if not several and devices is None:
        return True
    import jax

    num_devices = 1 if devices is None else at_least("devices", devices, 1, MAX_DEVICES)
    local_devices = num_devices // (num_processes or 1)
    flags = os.environ.get("XLA_FLAGS", "")
    if local_devices > 1 and "xla_force_host_platform_device_count" not in flags:
        jax.config.update("jax_num_cpu_devices", local_devices)
    if not several:
        return True
    from rljax.training import distributed

    distributed.join(address, num_processes, process_id, wait_seconds)
    return distributed.is_first()
