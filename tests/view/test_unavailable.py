"""A database that is not reachable, locked, full or empty: the error says what to do, and nothing is written."""

import sqlite3
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from jobtape.schemas.errors import JobtapeError, ViewUnavailable
from jobtape.view import checkpoint, projection
from jobtape.view.store import FoldedBatch, Gap, JobQuery, Store
from tests.view.samples import begin, commit, folded, postgresql_only, record, submitted

CALLS: dict[str, Callable[[Store], Any]] = {
    "job": lambda store: store.job("x"),
    "jobs": lambda store: store.jobs(["x"]),
    "list_jobs": lambda store: store.list_jobs(JobQuery()),
    "history": lambda store: store.history(),
    "unreadable": lambda store: store.unreadable(),
    "counts": lambda store: store.counts(),
    "passed_barrier": lambda store: store.passed_barrier("x"),
    "checkpoint": lambda store: store.checkpoint(),
    "create_checkpoint": lambda store: store.create_checkpoint(),
    "take_lease": lambda store: store.take_lease("me", 1),
    "renew_lease": lambda store: store.renew_lease("me", 1),
    "release_lease": lambda store: store.release_lease("me"),
    "commit": lambda store: store.commit("me", (1, None), FoldedBatch(offset=0, digest=""), 1),
    "report_gap": lambda store: store.report_gap("me", Gap("tape-missing", "")),
    "accept_gap": lambda store: store.accept_gap(),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
def test_call_without_tables_says_run_init(empty: Store, call: Callable[[Store], Any]) -> None:
    with pytest.raises(ViewUnavailable, match="no tables yet: run `jobtape init`"):
        call(empty)


def test_read_creates_no_file(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/view.db")
    with pytest.raises(ViewUnavailable):
        store.checkpoint()
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_tables_created_later_are_found(empty: Store) -> None:
    with pytest.raises(ViewUnavailable):
        empty.counts()
    empty.migrate()
    assert empty.counts() == {}


@every_call
def test_call_without_server_shows_no_password(call: Callable[[Store], Any]) -> None:
    store = Store("postgresql://somebody:hunter2@127.0.0.1:1/nowhere")
    with pytest.raises(ViewUnavailable, match="does not answer") as caught:
        call(store)
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in shown
    assert "postgresql://somebody@127.0.0.1:1/nowhere" in str(caught.value)
    store.close()


@pytest.fixture
def cut_off(database_url: str) -> Iterator[tuple[Store, Callable[[], int]]]:
    """A store, and a function that makes the server close all its connections and returns their number."""
    name = f"view_{uuid.uuid4().hex}"
    store = Store(f"{database_url}&application_name={name}")
    store.migrate()
    begin(store)

    def cut() -> int:
        with psycopg.connect(database_url, autocommit=True) as admin:
            ended = admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s", [name]
            ).fetchall()
        return len(ended)

    yield store, cut
    store.close()


@postgresql_only
def test_closed_connections_are_replaced(cut_off: tuple[Store, Callable[[], int]]) -> None:
    store, cut = cut_off
    for offset in range(3):
        assert cut() > 0
        assert commit(store, folded([submitted(offset)], first=offset))
        assert len(store.list_jobs(JobQuery())) == offset + 1


@postgresql_only
def test_connection_lost_in_transaction_writes_nothing(cut_off: tuple[Store, Callable[[], int]]) -> None:
    store, cut = cut_off
    batch = folded([submitted(1)])
    with (
        pytest.raises(ViewUnavailable, match="does not answer"),
        store._database.by_driver("fold") as connection,
        connection.transaction(),
    ):
        checkpoint.advance(connection, "me", (1, None), batch, 60)
        assert cut() > 0
        projection.write(connection, batch)
    assert store.history() == []
    assert store.commit("me", (1, None), batch, 60)


@pytest.fixture
def locked(sqlite_url: str) -> Iterator[tuple[Store, sqlite3.Connection]]:
    """A SQLite store with a short timeout, and a connection that locks the file."""
    store = Store(sqlite_url, timeout=0.1)
    store.migrate()
    begin(store)
    record(store, submitted(1))
    holder = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    yield store, holder
    holder.close()
    store.close()


def test_locked_database_writes_nothing(locked: tuple[Store, sqlite3.Connection]) -> None:
    store, holder = locked
    batch = folded([submitted(2)], first=1)
    with pytest.raises(ViewUnavailable, match="locked"):
        store.commit("me", (1, 0), batch, 60)
    before = store.checkpoint()  # with a write-ahead log, reads do not wait
    assert before is not None
    assert before.offset == 0
    holder.execute("ROLLBACK")
    assert len(store.history()) == 1
    assert store.commit("me", (1, 0), batch, 60)


@postgresql_only
def test_locked_row_writes_nothing(database_url: str) -> None:
    store = Store(database_url, timeout=0.1)
    store.migrate()
    begin(store)
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT * FROM checkpoint FOR UPDATE")
        with pytest.raises(ViewUnavailable, match="locked"):
            store.commit("me", (1, None), folded([submitted(1)]), 60)
    assert store.history() == []
    assert store.commit("me", (1, None), folded([submitted(1)]), 60)
    store.close()


@postgresql_only
def test_slow_read_ends(database_url: str) -> None:
    store = Store(database_url, timeout=0.1)
    store.migrate()
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ViewUnavailable, match="locked or too busy"):
            store.list_jobs(JobQuery())
    assert store.list_jobs(JobQuery()) == []
    store.close()


def test_full_disk_writes_nothing(sqlite_url: str) -> None:
    store = Store(sqlite_url)

    def no_more_pages(connection: sqlite3.Connection, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")

    store.migrate()
    begin(store)
    store.close()
    event.listen(store._database._driver, "connect", no_more_pages)
    with pytest.raises(ViewUnavailable, match="no room on the disk"):
        store.commit("me", (1, None), folded([submitted(1, payload={"text": "x" * 100_000})]), 60)
    event.remove(store._database._driver, "connect", no_more_pages)
    after = store.checkpoint()
    assert after is not None
    assert after.offset is None
    assert store.history() == []
    store.close()


@pytest.mark.parametrize("call", [lambda store: store.counts(), lambda store: store.create_checkpoint()])
def test_file_that_is_no_database_is_unavailable(tmp_path: Path, call: Callable[[Store], Any]) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("This is no database. " * 1000)
    store = Store(f"sqlite:///{path}")
    with pytest.raises(ViewUnavailable, match="not a database"):
        call(store)
    with pytest.raises(ViewUnavailable, match="not a database"):
        store.migrate()
    store.close()


@pytest.mark.parametrize(
    "url",
    ["", "view.db", "mysql://u:hunter2@h/d", "sqlite://", "sqlite:///:memory:", "postgresql://u:hunter2@h:port/d"],
)
def test_url_of_no_view_is_refused(url: str) -> None:
    with pytest.raises(JobtapeError, match="postgresql://user:password@host/database") as caught:
        Store(url)
    assert "hunter2" not in str(caught.value)


def test_url_for_messages_has_no_secrets() -> None:
    store = Store("postgresql://me:hunter2@db.example:5433/jobs?password=hunter2&sslmode=require")
    assert (store.dialect, store.url_for_messages) == ("postgresql", "postgresql://me@db.example:5433/jobs")
    store = Store("sqlite:///.jobtape/view.db")
    assert (store.dialect, store.url_for_messages) == ("sqlite", "sqlite:///.jobtape/view.db")
