"""Tests ``jobtape new``: what it refuses, and what it writes."""

import json
import re
from pathlib import Path

import pytest

from jobtape.cli.commands.new import package_of
from jobtape.cli.errors import WrongUse
from tests.cli.installation import Installation

FILES = [
    ".gitignore",
    "Dockerfile",
    "Makefile",
    "README.md",
    "compose.yaml",
    "my_shop/__init__.py",
    "my_shop/app.py",
    "my_shop/jobs.py",
    "pyproject.toml",
    "tests/test_jobs.py",
]


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_new_project_has_all_files_filled_in(installation: Installation) -> None:
    done = installation.run("new", "my-shop", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"folder": "my-shop", "package": "my_shop", "files": FILES}
    project = installation.folder / "my-shop"
    assert files_in(project) == FILES
    for name in FILES:
        assert re.search(r"\{\{|\}\}", (project / name).read_text()) is None, name


def test_existing_folder_is_left_as_it_is(installation: Installation) -> None:
    kept = installation.folder / "my-shop" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    before = files_in(installation.folder)
    refused = installation.run("new", "my-shop")
    assert refused.returncode == 2
    assert refused.stderr == "jobtape: my-shop exists already: choose another name, or another folder with --in\n"
    assert files_in(installation.folder) == before


def test_missing_parent_folder_is_an_error(installation: Installation) -> None:
    failed = installation.run("new", "my-shop", "--in", "nowhere")
    assert failed.returncode == 1
    assert "cannot write nowhere/my-shop" in failed.stderr
    assert not (installation.folder / "nowhere").exists()


@pytest.mark.parametrize(
    "name", ["", "My-Shop", "my shop", "../shop", "-shop", "shop-", "1shop", "a--b", "shöp", "a\n"]
)
def test_name_that_no_package_can_have_is_refused(name: str) -> None:
    with pytest.raises(WrongUse, match="small letters"):
        package_of(name)


@pytest.mark.parametrize("name", ["class", "json", "jobtape", "fastapi", "tests"])
def test_name_of_another_package_is_refused(name: str) -> None:
    with pytest.raises(WrongUse, match="add a word"):
        package_of(name)
