"""`rljax compare`: the statistics of several algorithms, and their figure."""

from typing import Any

from rljax.cli.parser import expect
from rljax.config import convert

OPTIONS = {
    "low": "return that is 0 in normalized scores, such as that of a random policy",
    "high": "return that is 1 in normalized scores; needed with --low",
    "output": "figure of the comparison: .png, .pdf or .svg; also -o",
}


def compare(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax compare RUN_DIR ...`: intervals, normalized scores, probability of improvement."""
    if not positionals:
        expect(positionals, 1, "compare", "RUN_DIR ...")
    bounds: dict[str, Any] = {
        name: convert(name, options[name], float) for name in ("low", "high") if name in options
    }

    from rljax import results

    runs = [results.load_result(run_dir) for run_dir in positionals]
    comparison = results.compare(runs, **bounds)
    if output := options.get("output"):
        results.report(runs, path=output, **bounds)
    print(comparison)
    if comparison.normalized is None and len(comparison.env_ids) > 1:
        print("\nnormalized scores need --low and --high, or rljax.compare in Python")
    if output:
        print(output)
