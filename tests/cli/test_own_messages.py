"""Tests that Jobtape's messages are printed however job modules configure logging for their own loggers."""

import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest

from tests.cli.installation import Installation
from tests.cli.programs import until

PROGRAM = """
import logging
from jobtape.cli import log_output as logs
early = logging.getLogger("jobtape.consumer.early")
logs.configure("worker", "info")
{kind}
logging.getLogger("users").warning("from the user")
for name in ("jobtape", "jobtape.consumer.early", "jobtape.consumer.late", "uvicorn.error"):
    own = logging.getLogger(name)
    if name.endswith("late"):
        from jobtape.process import loggers
        loggers.protect_new()
    own.info("Uvicorn running on %s", name)
    own.debug("below the level")
"""
DICT = "import logging.config\nlogging.config.dictConfig({{'version': 1, {0}}})"
FILE = "'handlers': {'f': {'class': 'logging.FileHandler', 'filename': 'users.log'}}"
STDERR = "'handlers': {'f': {'class': 'logging.StreamHandler', 'formatter': 'f'}}, 'formatters': {'f': {'format': 'U %(message)s'}}"  # noqa: E501
KINDS = {
    "dictConfig": DICT.format(f"{FILE}, 'root': {{'handlers': ['f'], 'level': 'WARNING'}}"),
    "dictConfig without a root": DICT.format(f"{FILE}, 'loggers': {{'users': {{'handlers': ['f']}}}}"),
    "dictConfig to stderr": DICT.format(f"{STDERR}, 'root': {{'handlers': ['f'], 'level': 'WARNING'}}"),
    "dictConfig, some of ours": DICT.format(
        f"{FILE}, 'root': {{'handlers': ['f']}}, 'loggers': {{'jobtape': {{'propagate': False}}}}"
    ),
    "fileConfig": """
import logging.config, pathlib
pathlib.Path("logging.ini").write_text('''
[loggers]
keys=root
[handlers]
keys=f
[formatters]
keys=
[logger_root]
level=ERROR
handlers=f
[handler_f]
class=FileHandler
args=("users.log",)
''')
logging.config.fileConfig("logging.ini")
logging.getLogger().setLevel("WARNING")
""",
    "disable": "logging.getLogger().addHandler(logging.FileHandler('users.log'))\nlogging.disable(logging.INFO)",
    "basicConfig": "logging.basicConfig(force=True, filename='users.log', level='WARNING')",
    "handlers cleared": """
logging.getLogger().handlers.clear()
logging.getLogger().addHandler(logging.FileHandler('users.log'))
for name in list(logging.root.manager.loggerDict):
    logging.getLogger(name).handlers.clear()
    logging.getLogger(name).disabled = True
    logging.getLogger(name).propagate = False
""",
    "a filter that fails": """
def fail(record): raise LookupError(record)
logging.getLogger().addHandler(logging.FileHandler('users.log'))
logging.getLogger().handlers[0].addFilter(lambda record: not record.name.startswith("jobtape") or fail(record))
""",
}


def output_with(logging_code: str, folder: Path) -> str:
    """Run PROGRAM with this configuration of logging in ``folder``, and return what it writes to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(kind=textwrap.dedent(logging_code))],
        cwd=folder,
        env={"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_own_messages_are_printed_once(tmp_path: Path, kind: str) -> None:
    output = output_with(KINDS[kind], tmp_path)
    for name in ("jobtape", "jobtape.consumer.early", "jobtape.consumer.late", "uvicorn.error"):
        assert output.count(f"Uvicorn running on {name}\n") == 1, output
    assert "below the level" not in output
    users = output if kind == "dictConfig to stderr" else (tmp_path / "users.log").read_text()
    assert users.count("from the user") == 1


def test_user_level_of_the_jobtape_logger_applies(tmp_path: Path) -> None:
    kind = DICT.format("'loggers': {'jobtape': {'level': 'ERROR'}}, 'disable_existing_loggers': False")
    output = output_with(kind, tmp_path)
    assert "jobtape" not in output


JOBS = """
import logging.config

LOGGING = {
    "version": 1,
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "users.log"}},
    "loggers": {"users": {"handlers": ["file"], "level": "INFO"}},
    "root": {"level": "CRITICAL"},
}
logging.config.dictConfig(LOGGING)
log = logging.getLogger("users")

from jobtape import Context, job

@job("child")
def child(n: int) -> int:
    return n

@job("parent")
async def parent(ctx: Context, n: int) -> str:
    logging.config.dictConfig(LOGGING)
    log.info("user async %d", n)
    ctx.log.info("ours async %d", n)
    return (await child.submit(n=n)).id

@job("parent-isolated", isolate=True)
def parent_isolated(ctx: Context, n: int) -> str:
    logging.config.dictConfig(LOGGING)
    log.info("user isolated %d", n)
    ctx.log.info("ours isolated %d", n)
    return child.submit_sync(n=n).id
"""


def test_worker_messages_survive_logging_configuration_of_jobs(broker_installation: Installation) -> None:
    """The job module configures logging on import and in its handlers, which submit further jobs."""
    (broker_installation.folder / "jobs_here.py").write_text(JOBS)
    program = broker_installation.up(JOBTAPE_LOG_LEVEL="info")
    users = broker_installation.folder / "users.log"
    for name, where in (("parent", "async"), ("parent-isolated", "isolated")):
        for n in range(2):
            child = broker_installation.submit(name, {"n": n}, "--wait").strip('"')
            program.line_with("worker ", f"ours {where} {n}")
            assert broker_installation.run("status", child, "--watch").returncode == 0
            until(partial(contains, users, f"user {where} {n}"), "the user's log file has the line")
    program.line_with("worker ", "taking jobs from default")
    program.line_with("api ", "Uvicorn running on")


def contains(file: Path, text: str) -> bool:
    return text in file.read_text()
