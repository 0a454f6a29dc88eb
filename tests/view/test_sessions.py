"""A session that has failed is not used again, since the database may have changed since the session began."""

import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from jobtape.schemas.errors import DatabaseUnfit, ViewUnavailable
from jobtape.view.store import JobQuery, KeyedSubmission, Store
from tests.databases import OwnDatabase, SessionPostgres, own_database
from tests.poolers import pooled_database
from tests.view.samples import NOON, begin, commit, folded, job_id, record, submitted

TIMES = int(os.environ.get("JOBTAPE_TEST_TIMES", "2"))
"""How often each case is repeated."""


@pytest.fixture(scope="module")
def database(postgres: SessionPostgres) -> Iterator[OwnDatabase]:
    with own_database(postgres.url) as made:
        yield made


@pytest.fixture
def view(database: OwnDatabase) -> Iterator[Store]:
    store = Store(database.url, timeout=2.0)
    store.migrate()
    begin(store)
    yield store
    store.close()
    database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def claim(store: Store, key: str) -> object:
    row = KeyedSubmission(key, "digest", job_id(len(key)), NOON)
    return store.keys.claim("api", uuid.uuid4().hex, [row], 30)


def test_writes_continue_when_database_accepts_them_again(view: Store, database: OwnDatabase) -> None:
    for n in range(TIMES):
        database.administer("ALTER DATABASE {name} SET default_transaction_read_only = on")
        database.end_sessions()
        for _ in range(2):
            with pytest.raises(ViewUnavailable, match=r"accepts no writes.*begins a new session"):
                commit(view, folded([submitted(n)], first=n))
            with pytest.raises(ViewUnavailable, match="accepts no writes"):
                claim(view, f"key{n}")
        assert len(view.list_jobs(JobQuery())) == n, "reads continue"
        database.administer("ALTER DATABASE {name} RESET default_transaction_read_only")
        assert commit(view, folded([submitted(n)], first=n))
        assert claim(view, f"key{n}")


BROKEN: dict[str, tuple[str, str]] = {
    "a table was renamed": ("ALTER TABLE tally RENAME TO away", "ALTER TABLE away RENAME TO tally"),
    "a column was renamed": ("ALTER TABLE jobs RENAME queue TO away", "ALTER TABLE jobs RENAME away TO queue"),
    "a privilege was revoked": (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE insufficient_privilege; END $$; "
        "CREATE TRIGGER refuse BEFORE INSERT ON history EXECUTE FUNCTION refuse()",
        "DROP FUNCTION refuse CASCADE",
    ),
    "the search path was changed": (
        "CREATE SCHEMA elsewhere; ALTER DATABASE {name} SET search_path = elsewhere",
        "ALTER DATABASE {name} RESET search_path; DROP SCHEMA elsewhere",
    ),
}


@pytest.mark.parametrize(("breaks", "repairs"), BROKEN.values(), ids=BROKEN)
def test_repaired_database_is_used_again(view: Store, database: OwnDatabase, breaks: str, repairs: str) -> None:
    for n in range(TIMES):
        database.execute(breaks)
        database.end_sessions()
        with pytest.raises(ViewUnavailable):
            record(view, submitted(n))
        database.execute(repairs)
        record(view, submitted(n))
    assert len(view.list_jobs(JobQuery())) == TIMES


def test_outdated_plan_is_replaced(view: Store, database: OwnDatabase) -> None:
    """A session refuses its prepared statement forever once the table has changed."""
    record(view, submitted(1))
    for n in range(TIMES):
        for _ in range(8):  # it is prepared from the sixth time on
            view.job(job_id(1))
        kind = "varchar" if n % 2 == 0 else "text"
        database.execute(f"ALTER TABLE jobs ALTER reply_to TYPE {kind}")
        try:
            view.job(job_id(1))
        except ViewUnavailable as error:
            assert "cached plan" in str(error)
        assert view.job(job_id(1)) is not None


def test_plan_of_small_table_does_not_read_all_of_large_one(view: Store, database: OwnDatabase) -> None:
    """A session keeps its plans while the tables grow, until the server has new statistics."""
    for n in range(10):
        record(view, submitted(n))
    record(view, *(submitted(n) for n in range(100, 1000)))
    for n in range(10):
        assert view.jobs([job_id(100 + n)])
    view.close()
    database.end_sessions()  # which writes their statistics
    with psycopg.connect(database.url) as connection:
        rows = connection.execute("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'jobs'").fetchone()
    assert rows == (0,)


def test_settings_of_database_have_no_effect(view: Store, database: OwnDatabase) -> None:
    """An administrator may set date format, floats, isolation and encoding for all sessions."""
    record(view, submitted(1))
    before = view.job(job_id(1))
    settings = {
        "datestyle": "'German'",
        "timezone": "'Asia/Kathmandu'",
        "extra_float_digits": "-10",
        "default_transaction_isolation": "'serializable'",
        "client_encoding": "'LATIN1'",
    }
    for name, value in settings.items():
        database.administer(f"ALTER DATABASE {{name}} SET {name} = {value}")
    database.end_sessions()
    try:
        assert view.job(job_id(1)) == before
        record(view, submitted(2, payload={"text": "10 €"}))
        found = view.job(job_id(2))
        assert found is not None
        assert found.payload == {"text": "10 €"}
    finally:
        database.administer("ALTER DATABASE {name} RESET ALL")


def test_client_encoding_has_no_effect(view: Store, database: OwnDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    for url in (database.url, f"{database.url}?client_encoding=WIN1252"):
        other = Store(url)
        found = claim(other, f"€ {url[-3:]}")
        assert isinstance(found, dict)
        other.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "WIN1252", "EUC_JP"])
def test_database_of_another_encoding_is_refused(postgres: SessionPostgres, encoding: str) -> None:
    with own_database(postgres.url, f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'") as made:
        store = Store(made.url)
        calls: list[Callable[[], object]] = [store.migrate, store.checkpoint, store.create_checkpoint]
        for call in calls * TIMES:
            with pytest.raises(DatabaseUnfit, match=f"is in {encoding}.*ENCODING 'UTF8' TEMPLATE template0"):
                call()
        with psycopg.connect(made.url) as connection:
            assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        store.close()


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_sqlite_stores_every_text_in_each_encoding(sqlite_url: str, encoding: str) -> None:
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as made:
        made.execute(f"PRAGMA encoding = '{encoding}'")
        made.execute("CREATE TABLE other (x)")
    store = Store(sqlite_url)
    store.migrate()
    begin(store)
    for n in range(TIMES):
        record(store, submitted(n, payload={"text": "10 € 🎞 \x00"}))
    jobs = store.list_jobs(JobQuery())
    assert [job.id for job in jobs] == [job_id(n) for n in reversed(range(TIMES))]
    assert {str(job.payload) for job in jobs} == {str({"text": "10 € 🎞 \x00"})}
    store.close()


def test_pooler_in_transaction_mode_is_supported(postgres: SessionPostgres) -> None:
    """All share two sessions of the server, so what a call left in its session would affect others."""
    with pooled_database(postgres.url, "transaction") as (url, direct):
        stores = [Store(url) for _ in range(3)]
        stores[0].migrate()
        begin(stores[0])
        for n in range(TIMES):
            record(stores[n % 3], submitted(n, payload={"text": "10 €"}), submitted(1000 + n))
            for store in stores:
                assert claim(store, f"key {n}")
                assert len(store.list_jobs(JobQuery(limit=n + 1))) == n + 1
                assert store.job(job_id(n)) is not None
                assert store.job(job_id(n + 500)) is None
                assert len(store.history(job_id(n))) == 1
                assert store.counts() == {("add", "submitted"): 2 * (n + 1)}
        with psycopg.connect(direct, autocommit=True) as plain:
            plain.execute(f"ALTER DATABASE {make_url(direct).database} SET timezone = 'Asia/Kathmandu'".encode())
        for store in stores:
            store.close()
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as other:
            # Nothing of ours is left for the next client.
            assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            assert other.execute("SHOW statement_timeout").fetchone() == ("0",)
            assert other.execute("SHOW lock_timeout").fetchone() == ("0",)


def test_read_only_sessions_of_pooler_are_ended(postgres: SessionPostgres) -> None:
    with pooled_database(postgres.url, "transaction") as (url, direct):
        database = OwnDatabase(postgres.url, make_url(direct).database or "")
        store = Store(url)
        store.migrate()
        begin(store)
        for n in range(TIMES):
            database.administer("ALTER DATABASE {name} SET default_transaction_read_only = on")
            database.end_sessions()
            failures = _tries(store, n, until="accepts no writes")
            assert failures
            database.administer("ALTER DATABASE {name} RESET default_transaction_read_only")
            assert len(_tries(store, n)) <= 2, "at most one failure for each session of the server"
        store.close()


def _tries(store: Store, n: int, until: str = "") -> list[str]:
    """Commit until it succeeds, or fails with ``until``; return the failures."""
    failures: list[str] = []
    for _ in range(20):
        try:
            commit(store, folded([submitted(n)], first=n))
        except ViewUnavailable as error:
            failures.append(str(error))
            if until and until in failures[-1]:
                return failures
        else:
            assert not until
            return failures
    raise AssertionError(failures)


def test_pooler_in_session_mode_is_supported(postgres: SessionPostgres) -> None:
    with pooled_database(postgres.url, "session", sessions=10) as (url, _):
        store = Store(url)
        store.migrate()
        begin(store)
        for n in range(TIMES):
            record(store, submitted(n))
        assert len(store.list_jobs(JobQuery())) == TIMES
        store.close()


def test_pooler_in_statement_mode_is_refused(postgres: SessionPostgres) -> None:
    with pooled_database(postgres.url, "statement") as (url, _):
        store = Store(url)
        calls: list[Callable[[], object]] = [store.migrate, store.checkpoint, store.create_checkpoint]
        for call in calls * TIMES:
            with pytest.raises(DatabaseUnfit, match=r"in statement mode.*pool_mode to transaction or session"):
                call()
        store.close()


@pytest.mark.parametrize("ignored", ["", "options"])
def test_options_behind_pooler_are_refused(postgres: SessionPostgres, ignored: str) -> None:
    """If they were ignored, the tables would be created in another schema."""
    with pooled_database(postgres.url, "transaction", ignore_startup_parameters=ignored) as (url, _):
        store = Store(f"{url}?options=-csearch_path%3Dmine")
        for call in (store.migrate, store.checkpoint):
            with pytest.raises(DatabaseUnfit, match=r"pooler in front of .* leave it out"):
                call()
        store.close()


@pytest.fixture
def file(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


@pytest.fixture
def on_file(sqlite_url: str) -> Iterator[Store]:
    store = Store(sqlite_url, timeout=2.0)
    store.migrate()
    begin(store)
    yield store
    store.close()


def test_deleted_file_is_noticed_at_once(on_file: Store, file: Path, sqlite_url: str) -> None:
    other = Store(sqlite_url)
    for n in range(TIMES):
        record(on_file, submitted(n))
        assert len(other.list_jobs(JobQuery())) == 1
        file.unlink()
        with pytest.raises(ViewUnavailable, match="has no tables yet: run `jobtape init`"):
            record(on_file, submitted(n))
        with pytest.raises(ViewUnavailable, match="no tables yet"):
            claim(other, f"key {n}")
        with pytest.raises(ViewUnavailable, match="no tables yet"):
            other.list_jobs(JobQuery())
        assert not file.exists()
        on_file.migrate()
        begin(on_file)
        assert other.list_jobs(JobQuery()) == []
    other.close()


def test_replaced_file_is_read_at_once(on_file: Store, file: Path, sqlite_url: str, tmp_path: Path) -> None:
    other = Store(sqlite_url)
    on_file.close()
    shutil.copy(file, tmp_path / "empty.db")
    for n in range(TIMES):
        record(on_file, submitted(n))
        assert len(other.list_jobs(JobQuery())) == 1
        shutil.copy(tmp_path / "empty.db", tmp_path / "copy.db")
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        (tmp_path / "copy.db").replace(file)
        assert other.list_jobs(JobQuery()) == []
        assert on_file.list_jobs(JobQuery()) == []
    other.close()


def test_writes_continue_when_full_disk_has_space_again(on_file: Store) -> None:
    def limit(pages: str) -> None:
        with on_file._database.by_driver("fold") as connection:
            connection.execute(text(f"PRAGMA max_page_count = {pages}"))

    for n in range(TIMES):
        limit("1")  # SQLite does not go below the present number
        with pytest.raises(ViewUnavailable, match="no room on the disk"):
            record(on_file, submitted(n, payload={"text": "x" * 100_000}))
        record(on_file, submitted(n, payload={"text": "x" * 100_000}))
    assert len(on_file.list_jobs(JobQuery())) == TIMES


def test_stored_failure_holds_no_lock(on_file: Store, sqlite_url: str) -> None:
    """The traceback of the failure refers to statements of the closed connection."""
    other = Store(sqlite_url, timeout=0.2)
    kept: list[BaseException] = []
    for n in range(TIMES):
        with pytest.raises(ViewUnavailable) as caught, on_file._database.writing() as connection:
            connection.execute(text("UPDATE checkpoint SET horizon = horizon"))
            connection.execute(text("INSERT INTO missing VALUES (1)"))
        kept.append(caught.value)
        record(other, submitted(n))
    other.close()
