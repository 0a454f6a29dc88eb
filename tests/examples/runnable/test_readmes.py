"""Runs each README, and checks what it prints."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox

from tests.examples.runnable.conftest import Installation, serving
from tests.examples.runnable.readme import EXAMPLES, NAMES, consoles, job_modules, readme, run_console

OTHERS = ("fix_and_redrive", "two_services")
"""Examples with two versions or two services, which have tests of their own."""
INDEX = (EXAMPLES / "README.md").read_text(encoding="utf-8")


@contextmanager
def mail_server(folder: Path, port: int) -> Iterator[None]:
    """Keep mails in ``folder / "mails"``, as the command of the README does."""
    controller = Controller(Mailbox(folder / "mails"), "127.0.0.1", port, server_hostname="localhost")
    controller.start()
    try:
        yield
    finally:
        controller.stop()


def test_index_names_each_example() -> None:
    assert len(NAMES) == 10
    assert [name for name in NAMES if f"]({name}/README.md)" not in INDEX] == []


@pytest.mark.parametrize("name", NAMES)
def test_readme_fits_a_screen(name: str) -> None:
    assert len(readme(name).splitlines()) <= 60


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OTHERS])
def test_commands_print_what_readme_says(name: str, installation: Installation) -> None:
    with ExitStack() as stack:
        if "aiosmtpd" in readme(name):
            port = int(installation.environment["JOBTAPE_EXAMPLE_SMTP_PORT"])
            stack.enter_context(mail_server(installation.folder, port))
        stack.enter_context(serving(name, installation))
        (block,) = consoles(name)
        ports = {"8000": installation.port, "8001": installation.app_port}
        run_console(block, installation.folder, installation.environment, ports)


def test_fixed_handler_corrects_past_jobs(installation: Installation) -> None:
    before, after = job_modules("fix_and_redrive")
    for modules, block in zip((before, after), consoles("fix_and_redrive"), strict=True):
        worker = installation.start(
            "-P", "-m", "jobtape", "worker", "--queues", "invoices", JOBTAPE_JOBS=modules, JOBTAPE_HEALTH_PORT="0"
        )
        run_console(block, installation.folder, installation.environment, {"8000": installation.port})
        worker.close()
