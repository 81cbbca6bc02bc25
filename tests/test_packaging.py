"""Version, license and addresses agree in all files; `.ci/package` builds and installs."""

import ast
import re
import tomllib
from pathlib import Path

import rljax

ROOT = Path(rljax.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_has_one_source():
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", rljax.__version__)
    assert f"\nversion: {rljax.__version__}\n" in text("CITATION.cff")
    assert f"## [{rljax.__version__}]" in text("CHANGELOG.md")


def test_the_license_is_apache_2():
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["license-files"] == ["LICENSE"]
    assert "\nlicense: Apache-2.0\n" in text("CITATION.cff")
    license = text("LICENSE")
    assert "Apache License" in license and "Version 2.0, January 2004" in license
    assert "END OF TERMS AND CONDITIONS" in license and "The rljax authors" in license


def test_addresses_agree():
    repository = PROJECT["urls"]["Repository"]
    assert f"\nrepository-code: {repository}\n" in text("CITATION.cff")
    assert all(url.startswith(repository) for url in PROJECT["urls"].values())
    assert repository in text("CHANGELOG.md")


def test_the_supported_versions_of_python_are_tested():
    named = {x.rpartition(" ")[2] for x in PROJECT["classifiers"] if "Python :: 3." in x}
    (tested,) = re.findall(r"python: \[(.*)\]", text(".github/workflows/ci.yml"))
    assert named == set(re.findall(r"[\d.]+", tested))
    assert PROJECT["requires-python"] == f">={min(named, key=lambda x: int(x.split('.')[1]))}"
    assert "bash .ci/run" in text(".github/workflows/ci.yml")
    assert "bash .ci/package" in text(".ci/run")


def test_the_package_is_typed():
    assert (ROOT / "rljax" / "py.typed").read_text() == ""


def test_public_names_are_imported_under_their_own_name():
    for node in ast.parse(text("rljax/__init__.pyi")).body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names)
