"""Tables of all algorithms and their properties, generated from the rows of `AGENTS`."""

import textwrap

from rljax.agents import AGENTS, FAMILIES, AgentRow

HEADER = ("agent", "policy", "model", "learns", "update", "actions")


def groups() -> dict[str, dict[str, AgentRow]]:
    """Returns the algorithms by heading, such as "Value-based (discrete actions)"."""
    found: dict[str, dict[str, AgentRow]] = {}
    for name, row in sorted(AGENTS.items(), key=lambda item: FAMILIES.index(item[1].family)):
        found.setdefault(_heading(row), {})[name] = row
    return found


def _heading(row: AgentRow) -> str:
    states = ", numbered states" if row.tabular else ""
    return f"{row.family.capitalize()} ({' and '.join(row.actions)} actions{states})"


def properties(row: AgentRow) -> tuple[str, ...]:
    """Returns the properties of an algorithm in words, in the order of `HEADER`."""
    policy = "-" if row.on_policy is None else "on-policy" if row.on_policy else "off-policy"
    model = "model-based" if row.model_based else "model-free"
    return policy, model, row.learns, row.update_unit, " and ".join(row.actions)


def markdown_table() -> str:
    """Returns the properties of all algorithms as a Markdown table."""
    header = ("agent", "algorithm", *HEADER[1:])
    rows = [
        (f"`{name}`", row.about, *properties(row))
        for rows in groups().values()
        for name, row in rows.items()
    ]
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def text_table(width: int = 80) -> str:
    """Returns the properties of all algorithms as plain text.

    Args:
      width: characters a line. Where the table is wider, each algorithm is a paragraph instead.
    """
    rows = [(name, *properties(row)) for rows in groups().values() for name, row in rows.items()]
    short = {"policy and value": "both", "discrete and continuous": "both"}
    cells = [HEADER, *(tuple(short.get(cell, cell) for cell in row) for row in rows)]
    sizes = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip()
        for row in cells
    ]
    if max(map(len, lines)) <= width:
        return "\n".join(lines)
    return "\n".join(_paragraph(row, width) for row in rows)


def _paragraph(row: tuple[str, ...], width: int) -> str:
    name, policy, model, learns, update, actions = row
    words = [model, f"learns {learns}", f"updates per {update}", f"{actions} actions"]
    text = f"{name}: {', '.join(words if policy == '-' else [policy, *words])}"
    return textwrap.fill(
        text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
