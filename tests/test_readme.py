"""The code that a reader would copy runs as it stands, and the commands shown exist."""

import re
from pathlib import Path

import pytest

from rljax.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "docs/your-own.md", "docs/parallel.md", "docs/tabular.md"]


def blocks(page, language):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = blocks(page, "python")
    assert found
    namespace = {"__name__": "readme"}
    for block in found:  # of one page, in order, as a reader would type them
        exec(compile(block, page, "exec"), namespace)
    assert any("rljax" in block for block in found) and len(namespace) > 2


def test_commands_exist():
    lines = [line for block in blocks("README.md", "sh") for line in block.splitlines()]
    used = {line.split("rljax ")[1].split()[0] for line in lines if "rljax " in line}
    assert used
    assert used <= set(COMMANDS)


def test_configs_named_in_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"configs/\S+\.toml", text):
        assert (ROOT / path).is_file(), path
