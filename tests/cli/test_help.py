"""Tests ``--help`` and ``--version``."""

import re
import subprocess
import sys
from importlib.metadata import version

import pytest
import typer.main

from jobtape.cli.main import app
from jobtape.settings import Settings
from tests.cli.installation import Installation

HEAVY = ("fastapi", "uvicorn", "httpx", "sqlalchemy", "aio_pika", "alembic")


def test_version_is_printed(installation: Installation) -> None:
    assert installation.run("--version").stdout == f"jobtape {version('jobtape')}\n"


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys, jobtape.cli.main; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", ["up", "api", "worker", "projector", "init"])
def test_every_server_option_names_its_variable(installation: Installation, command: str) -> None:
    text = installation.run(command, "--help", COLUMNS="200", TERM="dumb").stdout
    options = set(re.findall(r"--([a-z-]+) ", text)) - {"help", "accept-gap", "json"}
    variables = re.findall(r"env var: JOBTAPE_(\w+)", text)
    assert len(options) == len(variables)
    assert {name.lower() for name in variables} <= set(Settings.model_fields)


def test_every_server_option_sets_the_setting_of_its_variable() -> None:
    commands = typer.main.get_group(app).commands
    for name in ("up", "api", "worker", "projector", "init"):
        for option in commands[name].params:
            if option.envvar is not None:
                assert option.envvar == f"JOBTAPE_{str(option.name).upper()}"


def test_defaults_in_the_help_are_those_of_the_settings(installation: Installation) -> None:
    text = installation.run("up", "--help", COLUMNS="200", TERM="dumb").stdout
    for name in ("host", "port", "api_workers", "concurrency", "log_level"):
        line = next(line for line in text.splitlines() if f"JOBTAPE_{name.upper()}]" in line)
        assert f"[default: {Settings.model_fields[name].default}]" in line
