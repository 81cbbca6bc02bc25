"""Imports run one way, and nothing heavy is imported before it is needed."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rljax

ROOT = Path(rljax.__file__).parent

# each part of rljax, and the other parts that it may import
ALLOWED = {
    "types": (),
    "config": (),
    "ops": ("types", "config"),
    "networks": ("types", "config", "ops"),
    "replay": ("types", "config", "ops"),
    "envs": ("types", "config", "ops"),
    "agents": ("types", "config", "ops", "networks", "replay"),
    "training": ("types", "config", "ops"),
    "results": ("config",),
    "experiment": ("types", "config", "ops", "envs", "agents", "training", "results"),
    "rendering": ("types", "config", "ops", "envs", "training", "results", "experiment"),
    "cli": ("config", "envs", "agents", "training", "results", "experiment", "rendering"),
    "__main__": ("__init__", "cli", "experiment"),
}
PARTS = {*ALLOWED, "__init__"}


def module_name(path):
    parts = ["rljax", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(tree, package):
    """The modules that a syntax tree imports, as far as they are known."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in MODULES else base


def imports_of(name, module_level=False):
    path = MODULES[name]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    if module_level:  # what runs when the module is imported
        kept = [
            node for node in ast.walk(tree)
            if (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
            or isinstance(node, (ast.FunctionDef, ast.Lambda))
        ]  # fmt: skip
        for node in kept:
            node.body = []
    return {x for x in imported(tree, package) if x == "rljax" or x.startswith("rljax.")}


def part_of(name):
    return ([*name.split("."), "__init__"])[1]


def test_every_module_has_its_place():
    parts = {part_of(name) for name in MODULES}
    assert parts == PARTS, "add a new part to ALLOWED, with the parts that it may import"
    loose = [path for path in ROOT.iterdir() if path.suffix == ".py"]
    assert len(loose) <= 6


@pytest.mark.parametrize("name", [name for name in MODULES if part_of(name) in ALLOWED])
def test_imports_run_one_way(name):
    """In functions as well. So agents never see an environment, nor training an agent."""
    part = part_of(name)
    for other in imports_of(name):
        assert part_of(other) in (part, *ALLOWED[part]), f"{name} imports {other}"


def test_the_test_sees_imports_of_every_form():
    source = "import rljax.agents.ppo\nfrom rljax import envs\nfrom rljax.types import Env\n"
    source += "from . import learner\nfrom ..ops import returns\ndef f():\n from rljax import envs"
    found = set(imported(ast.parse(source), "rljax.training"))
    assert found == {
        "rljax.agents.ppo", "rljax.envs", "rljax.types", "rljax.training.learner",
        "rljax.ops.returns",
    }  # fmt: skip
    assert "rljax.types" in imports_of("rljax.training.learner", module_level=True)
    assert "rljax.envs" in imports_of("rljax.cli.listing")
    assert "rljax.envs" not in imports_of("rljax.cli.listing", module_level=True)


def test_imports_have_no_cycle():
    graph = {name: imports_of(name, module_level=True) & MODULES.keys() for name in MODULES}
    assert graph["rljax.experiment.run"]
    while graph:
        free = [name for name, needs in graph.items() if not (needs - {name}) & graph.keys()]
        assert free, f"import cycle among {sorted(graph)}"
        for name in free:
            del graph[name]


def test_every_public_name_exists():
    for name in rljax.__all__:
        assert getattr(rljax, name) is not None
    assert set(rljax.__all__) <= set(dir(rljax))
    assert len(set(rljax.__all__)) == len(rljax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = rljax.trian


def test_the_stub_lists_the_public_names():
    """Type checkers read `__init__.pyi`, as `__init__.py` does."""
    tree = ast.parse(MODULES["rljax"].with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = {alias.asname for node in imports for alias in node.names if node.module != "rljax"}
    subpackages = {alias.asname for node in imports for alias in node.names} - names
    assert names == set(rljax.__all__)
    assert subpackages == set(ALLOWED) - {"cli", "__main__"}


def test_every_agent_is_public():
    for name, row in rljax.AGENTS.items():
        for public in (row.config, row.make):
            line = f"from {public.__module__} import {public.__name__} as {public.__name__}"
            assert getattr(rljax, public.__name__, None) is public, (
                f"`{name}`: add this line to rljax/__init__.pyi: {line}"
            )


def test_every_subpackage_is_an_attribute():
    code = "import rljax; print(rljax.envs.make, rljax.replay.uniform, rljax.config.option)"
    assert not modules_after(code)[0] & {"gymnax", "matplotlib", "distrax"}
    for name in set(ALLOWED) - {"cli", "__main__"}:
        code = f"import rljax; assert rljax.{name}.__name__ == 'rljax.{name}'"
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=300)


HEAVY = ("jax", "flax", "optax", "distrax", "gymnax", "matplotlib", "rich", "scipy", "tensorboardX")


def modules_after(code):
    """Returns the heavy packages that a new interpreter imports when it runs `code`."""
    code += f"\nimport sys; print('SEEN', *[x for x in {HEAVY} if x in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(ROOT.parent)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("SEEN")[2].split()), done.stdout


def test_importing_rljax_imports_nothing_heavy():
    assert modules_after("import rljax; rljax.__all__, rljax.__version__")[0] == set()


def test_the_command_line_answers_without_jax():
    """Help, the version, and what is misspelled."""
    words = [
        ["--help"],
        [],
        ["--version"],
        ["plot", "--help"],
        ["train", "--help"],
        ["trian"],
        ["plot", "--metrik", "x"],
    ]
    code = f"from rljax.__main__ import main\nprint([main(x) for x in {words}])"
    seen, output = modules_after(code)
    assert seen == set()
    assert output.count("usage: rljax COMMAND") == 2 and "[0, 0, 0, 0, 0, 2, 2]" in output


def test_configs_and_results_need_no_environment():
    code = "import rljax; rljax.PPOConfig(); rljax.Result; rljax.AGENTS; rljax.make_learner"
    assert not modules_after(code)[0] & {"gymnax", "matplotlib", "tensorboardX", "distrax"}
