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
    suites: dict[str, list[str]] = {}
    for env_id in envs.environment_ids():
        suite = env_id.split("/")[0] if "/" in env_id else "gymnax"
        suites.setdefault(suite, []).append(env_id)
    sections += [f"Environments: {suite}\n{in_columns(ids)}" for suite, ids in suites.items()]
    sections.append(
        wrap(
            "`rljax train AGENT --help` shows the options of an agent, `rljax list --about` the "
            "properties of all agents."
        )
    )
    return "\n\n".join(sections)


def properties() -> str:
    """Returns the table of `rljax list --about`, as wide as the terminal."""
    from rljax.agents import about

    return about.text_table(width())
