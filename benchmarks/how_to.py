"""Lines of code and seconds of each program in docs/how-to.md.

    python benchmarks/how_to.py            all programs, without and with compiled programs cached
    python benchmarks/how_to.py 1 8        two of them

Each program runs in a process of its own and in an empty directory, first without a compilation
cache, then twice with one, of which the second is the time with everything cached.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "how-to.md"
SECTION = re.compile(r"^## (\d+)\. (.+?)$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def programs() -> list[tuple[int, str, str]]:
    """Returns the number, the title and the program of each section."""
    found = []
    for number, title, text in SECTION.findall(PAGE.read_text(encoding="utf-8")):
        (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        found.append((int(number), title, program))
    return found


def num_lines(program: str) -> int:
    """Returns the number of lines that are not empty."""
    return sum(bool(line.strip()) for line in program.splitlines())


def seconds(program: str, cache: str) -> float:
    """Returns the wall time of a program in a new process."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "program.py"
        file.write_text(program, encoding="utf-8")
        environment = os.environ | {"RLJAX_CACHE": cache}
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-W", "ignore", file.name], cwd=directory, env=environment, check=True,
            capture_output=True,
        )  # fmt: skip
        return time.perf_counter() - start


def main() -> None:
    """Prints a row of a Markdown table for each program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("numbers", nargs="*", type=int, help="numbers of the sections (all)")
    numbers = parser.parse_args().numbers
    print("| task | lines | seconds | seconds, programs cached |\n| --- | --- | --- | --- |")
    for number, title, program in programs():
        if numbers and number not in numbers:
            continue
        with tempfile.TemporaryDirectory() as cache:
            cold = seconds(program, "off")
            seconds(program, cache)
            warm = seconds(program, cache)
        row = f"{number}. {title}", f"{num_lines(program)}", f"{cold:.0f}", f"{warm:.0f}"
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
