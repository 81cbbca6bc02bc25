"""What a compiled program launches: from a profiler trace, and from the text of the program."""

import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

# an instruction with the name that JAX gives it and the number of its line of source, if any
NAMED_OP = re.compile(
    r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]*)"(?:.*?stack_frame_id=(\d+))?', re.MULTILINE
)
OUTER = {"while", "body", "cond", "closed_call", "eval_jaxpr", "jit(chunk)"}


class Event(NamedTuple):
    """One kernel or copy of a trace, in nanoseconds.

    Attributes:
      name: name of the kernel.
      op: the instruction of the compiled program; the name of the kernel where it is unknown.
      module: the compiled program; "" where it is unknown.
      start, end: time.
    """

    name: str
    op: str
    module: str
    start: float
    end: float


def trace(run: Callable[[], Any]) -> list[Event]:
    """Returns the kernels on a GPU while `run` runs, or the operations of a CPU."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory, profiler_options=options):
            run()
        file = next(Path(directory).rglob("*.xplane.pb"))
        planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    if devices:
        streams = [line for plane in devices for line in plane.lines]
        named = [line for line in streams if line.name.startswith("Stream")]
        return _events(named or streams)
    events = _events(line for plane in planes for line in plane.lines)
    loops = ("while", "call", "conditional")  # what they run are events of their own
    return [event for event in events if event.module and not event.op.startswith(loops)]


def _events(lines: Any) -> list[Event]:
    events = []
    for line in lines:
        for event in line.events:
            stats = dict(event.stats)
            start, op = event.start_ns, stats.get("hlo_op", event.name)
            module = str(stats.get("hlo_module", ""))
            events.append(Event(event.name, str(op), module, start, start + event.duration_ns))
    return sorted(events, key=lambda event: event.start)


def summary(events: list[Event], num_updates: int, text: str, top: int = 5) -> dict[str, Any]:
    """Returns what a trace of `num_updates` updates shows, for each update.

    Only the time from the first to the last kernel of the program counts, without what the host
    does before and after it.

    Args:
      events: the events of `trace`.
      num_updates: number of updates in it.
      text: the compiled program, which knows the origin of an instruction.
      top: number of instructions listed.
    """
    on_cpu = jax.default_backend() == "cpu"
    modules = Counter(event.module for event in events if event.module).most_common(1)
    if modules:
        own = [event.start for event in events if event.module == modules[0][0]]
        events = [event for event in events if own[0] <= event.start <= own[-1]]
    copies = [event for event in events if event.name.startswith(("Memcpy", "Memset"))]
    reads = [event for event in copies if "D2H" in event.name or "DtoH" in event.name]
    nanoseconds, counts = Counter(), Counter()
    for event in events:
        nanoseconds[event.op, event.name] += event.end - event.start
        counts[event.op, event.name] += 1
    origins = origins_of(text)
    total = sum(nanoseconds.values()) or 1
    return {
        "kernels": (len(events) - len(copies)) / num_updates,
        "copies": (len(copies) - len(reads)) / num_updates,
        "host_reads": len(reads) / num_updates,
        # on a CPU operations run in parallel with those that contain them
        "busy_seconds": None if on_cpu else _union(events) * 1e-9 / num_updates,
        "top": [
            {
                "op": op, "kernel": name, "origin": origins.get(op, ""),
                "count": counts[op, name] / num_updates, "part": spent / total,
                "microseconds": spent * 1e-3 / num_updates,
            }
            for (op, name), spent in nanoseconds.most_common(top)
        ],
    }  # fmt: skip


def _union(events: list[Event]) -> float:
    """Returns the time in which at least one event runs; they are sorted by their start."""
    busy, last = 0.0, 0.0
    for event in events:
        busy += max(0.0, event.end - max(event.start, last))
        last = max(last, event.end)
    return busy


def origins_of(text: str) -> dict[str, str]:
    """Returns for each instruction of a compiled program the line of source and a name of JAX."""
    lines = _lines_of_source(text)
    origins = {}
    for instruction, name, frame in NAMED_OP.findall(text):
        parts = [part for part in name.split("/") if part not in OUTER]
        origin = lines.get(frame), "/".join(parts[-4:])[-60:]
        origins[instruction] = " ".join(filter(None, origin))
    return origins


def _lines_of_source(text: str) -> dict[str, str]:
    """Returns "file:line function" by the number of the stack frame; empty without the tables."""
    tables = {}
    for name in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
        rows = re.search(rf"^{name}\n((?:\d+ .*\n)+)", text, re.MULTILINE)
        tables[name] = dict(row.split(" ", 1) for row in rows[1].splitlines()) if rows else {}
    lines = {}
    for frame, row in tables["StackFrames"].items():
        location = tables["FileLocations"].get(_number("file_location_id", row), "")
        file = tables["FileNames"].get(_number("file_name_id", location), "").strip('"')
        function = tables["FunctionNames"].get(_number("function_name_id", location), "").strip('"')
        function = function.replace("<locals>.", "")
        lines[frame] = f"{Path(file).name}:{_number('line', location)} {function}" if file else ""
    return lines


def _number(name: str, row: str) -> str:
    match = re.search(rf"\b{name}=(\d+)", row)
    return match[1] if match else ""


def static_counts(text: str) -> dict[str, Any]:
    """Returns what the text of a compiled program shows.

    A loop without a known number of iterations has a condition that the device computes and the
    host reads after each iteration. The branch of a conditional is read in the same way.

    Returns:
      `launches`: instructions that launch a kernel, each counted once, also in a loop. `loops`,
      `data_dependent_loops` and `conditionals`: numbers of these. `waiting`: the
      origins of the data-dependent loops and of the conditionals.
    """
    lines, origins = text.splitlines(), origins_of(text)
    loops = [line for line in lines if " while(" in line]
    data_dependent = [line for line in loops if "known_trip_count" not in line]
    conditionals = [line for line in lines if " conditional(" in line]
    waiting = [
        line.split(" = ")[0].replace("ROOT", "").strip(" %")
        for line in (*data_dependent, *conditionals)
    ]
    return {
        "launches": len(re.findall(r" (?:fusion|custom-call|while)\(", text)),
        "loops": len(loops), "data_dependent_loops": len(data_dependent),
        "conditionals": len(conditionals),
        "waiting": [origins.get(name, name) for name in waiting],
    }  # fmt: skip
