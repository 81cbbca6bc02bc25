"""The code, commands, files and tables of the documentation, and the examples in docstrings."""

import ast
import doctest
import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import rljax
from rljax.agents import AGENTS, about
from rljax.cli import commands, parser
from rljax.config import field_types, load

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks/README.md"])
}
LIBRARY = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(ROOT.glob("rljax/**/*.py"))
}


def blocks(language):
    """Returns the code blocks of all pages: `(page, number, text)`."""
    return [
        (page, number, block)
        for page, text in PAGES.items()
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))
    ]


def shell_lines():
    return [line.partition("#")[0] for *_, block in blocks("sh") for line in block.splitlines()]


PYTHON = {f"{page}-{number}": block for page, number, block in blocks("python")}


@pytest.mark.parametrize("name", PYTHON)
def test_python_blocks_run_alone(name, tmp_path):
    script = tmp_path / "block.py"
    script.write_text(PYTHON[name], encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script.name], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_pages_have_python_blocks():
    pages = {name.rpartition("-")[0] for name in PYTHON}
    assert pages >= {f"docs/{page}.md" for page in ("your-own", "results", "parallel", "tabular")}
    assert "README.md" in pages


def test_commands_and_options_exist():
    lines = [re.search(r"(?:^|[\s/])rljax ([a-z].*)", line) for line in shell_lines()]
    used = [found[1].split() for found in lines if found]
    assert len(used) > 20
    for command, *words in used:
        assert command in commands.COMMANDS, command
        positionals, options = parser.parse(words)
        known = {*commands.COMMANDS[command].options, "help"}
        if command == "train":
            agent = positionals[0] if positionals else ""
            if agent.endswith(".toml"):
                agent = load(ROOT / agent)["agent"]
            known |= set(field_types(AGENTS[agent].config))
        for option in options:
            assert option in known or option.startswith("env_params."), (command, words, option)


def test_scripts_and_their_options_exist():
    lines = [re.search(r"python (benchmarks/\S+\.py)(.*)", line) for line in shell_lines()]
    used = [found.groups() for found in lines if found]
    assert len(used) > 10
    for script, words in used:
        text = (ROOT / script).read_text(encoding="utf-8")
        for option in re.findall(r"--[a-z-]+", words.partition('"')[0]):
            assert f'"{option}"' in text, (script, option)


def test_tuned_settings_exist():
    named = {
        name for text in PAGES.values() for name in re.findall(r"configs/[\w/.-]+\.toml", text)
    }
    named -= {"configs/AGENT/ENV_ID.toml"}
    assert named
    for name in named:
        assert (ROOT / name).is_file(), name
    pairs = re.findall(r"rljax train (\w+) (\S+) --config tuned", "\n".join(shell_lines()))
    pairs += re.findall(r'tuned\("(\w+)", "([^"]+)"\)', "\n".join(PYTHON.values()))
    assert len(pairs) > 1
    for agent, env_id in pairs:
        assert rljax.tuned(agent, env_id)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_named_files_exist(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[page])
    for link in links:
        assert ((ROOT / page).parent / link).exists(), link
    for name in re.findall(r"`((?:rljax|benchmarks|docs|tests)/[\w/.-]*(?:\.\w+|/))`", PAGES[page]):
        assert (ROOT / name).exists() or "/." in name, name
    for name, path in re.findall(r"`(\w+)` in `(rljax/[\w/]+\.py)`", PAGES[page]):
        assert re.search(rf"^(?:(?:def|class) )?{name}\b", LIBRARY[path], re.M), (name, path)


def test_algorithms_page_is_complete():
    page = PAGES["docs/algorithms.md"]
    assert about.markdown_table() in page, (
        "paste the output of about.markdown_table() into the page"
    )
    sources = page.partition("## Papers")[2]
    for agent in AGENTS:
        assert f"\n| `{agent}` |" in sources, f"add the source of {agent}"


def test_readme_lists_all_agents():
    for agent in AGENTS:
        assert f"`{agent}`" in PAGES["README.md"], agent


def test_metrics_page_is_generated():
    written = runpy.run_path(str(ROOT / "docs/metrics.py"))["page"]()
    assert PAGES["docs/metrics.md"] == written, "run `python docs/metrics.py`"


def test_metrics_page_explains_all_metrics():
    """Those of agents in other places than tests/agents/test_metrics.py, and of the host."""
    strings = {
        node.value
        for path, text in LIBRARY.items()
        if not path.endswith("metric_descriptions.py")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    metrics = {text for text in strings if re.fullmatch(r"(?:charts|losses|eval|time)/\w+", text)}
    assert len(metrics) > 30
    for metric in metrics:
        assert f"| `{metric}` |" in PAGES["docs/metrics.md"], metric


def module_name(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


EXAMPLES = [module_name(path) for path, text in LIBRARY.items() if ">>> " in text]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report = []
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(example, out=report.append)
    assert runner.tries, f"no example of {name} was found"
    assert not runner.failures, "".join(report)
