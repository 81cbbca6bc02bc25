"""Learning results of the configurations: many seeds of each, evaluated greedily.

    python benchmarks/learning.py                                  all of configs/
    python benchmarks/learning.py configs/ppo/CartPole-v1.toml --num-seeds 32 --output results

The expected results are in expected.toml. The exit code is 1 if a configuration misses its own.
"""

import argparse
import math
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lib import harness, measure
from lib.harness import Table

sys.path.insert(0, str(harness.REPOSITORY))  # this checkout

CONFIGS = harness.REPOSITORY / "configs"
EXPECTED = harness.BENCHMARKS / "expected.toml"


class Expected(NamedTuple):
    """The result that a configuration must reach.

    Attributes:
      mean: minimum of the mean greedy return over seeds.
      floor: return that at least `passing` of `num_seeds` seeds must reach.
      source: published result for the same task.
    """

    mean: float
    floor: float
    passing: int
    num_seeds: int
    source: str


def main() -> int:
    options = parse()
    expected = load_expected()
    paths = [Path(path).resolve() for path in options.configs] or sorted(CONFIGS.rglob("*.toml"))
    table = Table(
        "Configurations",
        f"Mean greedy return of {options.episodes} episodes of each seed's last policy, over "
        "seeds; IQM with its 95 % stratified-bootstrap interval. Seconds include training, "
        "compiling and evaluating all seeds.",
        "config", ">steps", ">mean", "IQM", ">seeds over floor", ">expected", "verdict",
        ">seconds",
    )  # fmt: skip
    failed = 0
    line = harness.machine(measure.facts())
    for path in paths:
        name = name_of(path)
        failed += train_and_judge(path, name, expected.get(name), table, options)
        if options.output:
            harness.write(options.output / "learning.md", "Learning", line, [table])
    given = {name_of(path) for path in paths}
    missing = [] if options.configs else sorted(expected.keys() - given)
    table.remarks += [f"{name}: in expected.toml, but the file is missing" for name in missing]
    print(f"\n{line}\n\n{table.text()}")
    return int(bool(failed or missing))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help="TOML files (all of configs/)")
    parser.add_argument(
        "--num-seeds", type=int, help="seeds of each configuration (as in expected.toml)"
    )
    parser.add_argument(
        "--episodes", type=int, default=100, help="evaluation episodes of each seed (100)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="directory for the table and the figures"
    )
    return parser.parse_args()


def load_expected() -> dict[str, Expected]:
    return {
        name: Expected(**fields)
        for name, fields in tomllib.loads(EXPECTED.read_text(encoding="utf-8")).items()
    }


def name_of(path: Path) -> str:
    """Returns a name such as `ppo/CartPole-v1` for a file in configs/, else its path."""
    inside = path.is_relative_to(CONFIGS)
    return path.relative_to(CONFIGS).with_suffix("").as_posix() if inside else str(path)


def train_and_judge(
    path: Path, name: str, expected: Expected | None, table: Table, options: argparse.Namespace
) -> bool:
    """Trains and judges one configuration. Returns whether it failed."""
    from rljax import config
    from rljax.experiment.make_plan import plan_from_record
    from rljax.experiment.run_plan import run_plan
    from rljax.results import figures, statistics

    start = time.perf_counter()
    try:
        record: dict[str, Any] = config.load(path)
        if seeds := options.num_seeds or (expected and expected.num_seeds):
            record["num_seeds"] = seeds
        result = run_plan(plan_from_record(record), eval_episodes=options.episodes)
        if result.sweep:
            raise ValueError(
                f"the configuration sweeps {', '.join(result.sweep)}: give one value of each."
            )
    except (ValueError, FloatingPointError) as error:
        table.add(name, "", "", "", "", "", "FAIL: an error")
        table.remarks.append(f"{name}: {error}")
        return True
    (scores,) = result.scores(evaluated=True)
    verdict, over = judge(scores, expected)
    table.add(
        name, figures.human(float(result.steps[-1])), f"{scores.mean():.4g}",
        statistics.describe(scores), over, f"{expected.mean:g}" if expected else "-", verdict,
        harness.seconds(time.perf_counter() - start),
    )  # fmt: skip
    if expected:
        table.remarks.append(
            f"{name}: a mean of {expected.mean:g}, and {expected.passing} of {expected.num_seeds} "
            f"seeds at {expected.floor:g}; {expected.source}"
        )
    if options.output:
        result.plot(options.output / f"{name.strip('/').replace('/', '-')}.png")
    return verdict.startswith("FAIL")


def judge(scores: np.ndarray, expected: Expected | None) -> tuple[str, str]:
    """Returns the verdict and the number of seeds over the floor, from the returns `[seeds]`.

    A NaN counts as not reached.
    """
    if expected is None:
        return "no target", "-"
    needed = math.ceil(len(scores) * expected.passing / expected.num_seeds)
    over = int((scores >= expected.floor).sum())
    shown = f"{over} of {len(scores)}"
    if not scores.mean() >= expected.mean:
        return "FAIL: the mean", shown
    if over < needed:
        return f"FAIL: {needed} seeds must reach {expected.floor:g}", shown
    return "pass", shown


if __name__ == "__main__":
    sys.exit(main())
