"""`rljax list`: the agents by family, and the environments by suite."""

from rljax.cli.help import in_columns, text_column, two_columns, width, wrap


def agents_and_environments() -> str:
    """Returns the agents by family with a line each, then the environments by suite."""
    from rljax import envs
    from rljax.agents import AGENTS, about

    column = text_column(AGENTS)
    sections = [
        f"{heading}\n{two_columns({name: row.about for name, row in rows.items()}, column)}"
        for heading, rows in about.groups().items()
    ]
    sections += [environments(suite) for suite in envs.ALWAYS_THERE]
    rows = {}
    for name, suite in envs.SUITES.items():
        if suite.extra:
            install = f"pip install '{suite.requirement}'"
            command = f"rljax list {name}" if envs.is_installed(name) else install
            rows[name] = f"{suite.about}: {command}"
    sections.append(f"Further suites of environments\n{two_columns(rows, text_column(rows))}")
    sections.append(
        wrap(
            "`rljax train AGENT --help` shows the options of an agent, `rljax list --about` the "
            "properties of all agents."
        )
    )
    return "\n\n".join(sections)


def environments(suite: str) -> str:
    """Returns the ids of a suite, in columns.

    Raises:
      ValueError: there is no such suite, or it is not installed.
    """
    from rljax import envs

    return f"Environments: {suite}\n{in_columns(envs.environment_ids(suite))}"


def properties() -> str:
    """Returns the table of `rljax list --about`, as wide as the terminal."""
    from rljax.agents import about

    return about.text_table(width())
