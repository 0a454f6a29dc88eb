"""Tests the messages for databases that cannot be used, and that no message shows a password."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobtape.schemas.errors import ViewUnavailable
from jobtape.view.store import Store
from tests.cli.installation import Installation
from tests.databases import SessionPostgres, own_database
from tests.poolers import pooled_database
from tests.view.samples import begin, record, submitted

TIMES = int(os.environ.get("JOBTAPE_TEST_TIMES", "1"))


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Run the block as the user ``nobody`` instead of root, who may write everywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Create a folder that belongs to the user ``nobody``, or to the current user if that is not root."""
    made = Path(tempfile.mkdtemp(prefix="jobtape-test-rights-"))
    if os.geteuid() == 0:
        shutil.chown(made, "nobody")
    yield made
    made.chmod(0o700)
    shutil.rmtree(made)


@pytest.mark.parametrize("where", ["file", "folder", "missing folder"])
def test_unwritable_path_is_refused(folder: Path, where: str) -> None:
    path = folder / ("new/view.db" if where == "missing folder" else "view.db")
    if where == "file":
        path.write_bytes(b"")
        path.chmod(0o444)
    folder.chmod(0o555)
    store = Store(f"sqlite:///{path}")
    for _ in range(10):
        with ordinary_user(), pytest.raises(ViewUnavailable, match="this user may not write") as caught:
            store.migrate()
        assert "jobtape init" not in str(caught.value)
    store.close()


def test_file_that_becomes_writable_is_used(folder: Path) -> None:
    path = folder / "view.db"
    with ordinary_user():
        store = Store(f"sqlite:///{path}")
        store.migrate()
        begin(store)
        for n in range(10):
            store.close()
            for each in folder.iterdir():
                each.chmod(0o444)
            with pytest.raises(ViewUnavailable, match="may not write"):
                record(store, submitted(n))
            for each in folder.iterdir():
                each.chmod(0o644)
            record(store, submitted(n))
        store.close()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("a folder", "is a folder"), ("no database", "is not a SQLite database"), ("below a file", "is not a folder")],
)
def test_init_names_reason_why_path_cannot_be_used(installation: Installation, kind: str, reason: str) -> None:
    path = installation.folder / "here"
    if kind == "a folder":
        path.mkdir()
    else:
        path.write_text("This is no database. " * 100)
    url = f"sqlite:///{path / 'view.db' if kind == 'below a file' else path}"
    for _ in range(TIMES):
        done = installation.run("init", DATABASE_URL=url)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert reason in done.stderr
        assert "is DATABASE_URL right?" in done.stderr
        assert "jobtape init" not in done.stderr


@pytest.mark.parametrize("command", ["init", "projector"])
def test_unfit_database_is_refused(installation: Installation, postgres: SessionPostgres, command: str) -> None:
    with own_database(postgres.url, "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'") as made:
        for _ in range(TIMES):
            done = installation.run(command, DATABASE_URL=made.url)
            assert done.returncode == 2
            assert done.stderr.count("\n") == 1
            assert "is in LATIN1 and cannot store every text" in done.stderr


def test_pooler_in_statement_mode_is_refused(installation: Installation, postgres: SessionPostgres) -> None:
    with pooled_database(postgres.url, "statement") as (url, _):
        for _ in range(TIMES):
            done = installation.run("projector", DATABASE_URL=url)
            assert done.returncode == 2
            assert "in statement mode" in done.stderr


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "postgresql://me:hun@ter2@host/x"),
        ("DATABASE_URL", "host=host password=hunter2"),
        ("RABBITMQ_URL", "amqp://me:hun/ter2@host/"),
        ("RABBITMQ_URL", "amqp://me:1#hunter2@host/"),
        ("JOBTAPE_MANAGEMENT_URL", "http://me:hun/ter2@host/"),
    ],
)
def test_malformed_url_shows_no_password(installation: Installation, name: str, url: str) -> None:
    done = installation.run("doctor", **{name: url})
    assert done.returncode == 2
    output = done.stdout + done.stderr
    assert name in output
    assert "percent-encode" in output
    assert "hun" not in output
    assert "ter2" not in output
