"""Planted faults: one wrong line in the code of an agent, and whether the tests notice it.

    python benchmarks/faults/mutation.py                  all faults, about half an hour
    python benchmarks/faults/mutation.py --only trpo pqn  the faults of two agents

Each fault of `faults.toml` is planted in a temporary copy of the package. The tests of the agent
run against the copy, then the tests of all agents in environments with known values. A fault is
killed by the first test that fails. `--check` runs the same tests without the faults instead.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMON = 'tests/test_probe_environments.py tests/test_contract.py -k "[{agent}"'
PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-m", "not slow"]
SUCCESS, FAILURE, NO_TESTS = 0, 1, 5  # exit codes of pytest


def plant(fault: dict[str, Any], directory: Path) -> None:
    """Replaces the text of a fault in the copy of its file.

    Raises:
      SystemExit: the text is not in the file exactly once.
    """
    file = directory / "rljax" / fault["file"]
    text = file.read_text()
    if text.count(fault["old"]) != 1:
        raise SystemExit(f"{fault['file']} has {text.count(fault['old'])} times: {fault['old']}")
    file.write_text(text.replace(fault["old"], fault["new"]))


def failed_test(fault: dict[str, Any], directory: Path, seconds: float) -> str | None:
    """Returns the first test that fails in a copy of the package, or None if none does."""
    environment = os.environ | {"PYTHONPATH": str(directory), "JAX_PLATFORMS": "cpu"}
    for tests in (fault["tests"], COMMON.format(agent=fault["agent"])):
        try:
            done = subprocess.run(
                [*PYTEST, *shlex.split(tests)], cwd=directory, env=environment,
                capture_output=True, text=True, timeout=seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"no end after {seconds:.0f} s"
        lines = done.stdout.splitlines()
        if done.returncode == FAILURE:
            return next(line.split()[1] for line in lines if line.startswith(("FAILED", "ERROR")))
        if done.returncode not in (SUCCESS, NO_TESTS):
            raise SystemExit(done.stdout + done.stderr)
    return None


def outcome(fault: dict[str, Any], planted: bool, seconds: float) -> str | None:
    """Returns the first test that fails with, or without, a fault."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for part in ("rljax", "tests", "configs"):
            shutil.copytree(
                ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(ROOT / "pyproject.toml", directory)
        if planted:
            plant(fault, directory)
        return failed_test(fault, directory, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", help="agents whose faults are planted")
    parser.add_argument("--seconds", type=float, default=900.0, help="limit of one run of pytest")
    parser.add_argument("--check", action="store_true", help="run the tests without the faults")
    options = parser.parse_args()
    with open(Path(__file__).with_name("faults.toml"), "rb") as file:
        faults = tomllib.load(file)["fault"]
    faults = [x for x in faults if not options.only or x["agent"] in options.only]
    counts: Counter[str] = Counter()
    for fault in faults:
        start = time.perf_counter()
        test = outcome(fault, not options.check, options.seconds)
        verdict = "SURVIVED" if test is None else "killed"
        if options.check:
            verdict = "passed" if test is None else "FAILED"
        counts[verdict] += 1
        seconds = time.perf_counter() - start
        print(
            f"{verdict:8}  {fault['agent']:21}  {seconds:4.0f} s  {fault['about']}"
            + (f"  ({test})" if test else ""),
            flush=True,
        )
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


if __name__ == "__main__":
    main()
