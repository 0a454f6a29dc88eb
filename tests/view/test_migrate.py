"""The tables come from the migrations, once, whoever begins."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from jobtape.schemas.errors import ViewUnavailable
from jobtape.view import tables
from jobtape.view.store import Store
from tests.view.samples import record, submitted

MIGRATE = """
import sys
from jobtape.view.store import Store
store = Store(sys.argv[1])
sys.stdin.readline()
store.migrate()
print(store.create_checkpoint())
"""


def test_processes_at_once(database_url: str, empty: Store) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, database_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert sorted(answers) == ["False", "False", "False", "True"]
    assert empty.checkpoint() is not None


def test_threads_at_once(database_url: str) -> None:
    start = threading.Barrier(4)

    def migrate() -> None:
        store = Store(database_url)
        start.wait()
        store.migrate()
        store.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(migrate) for _ in range(4)]:
            done.result()


def test_the_folder_is_made(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/new/folder/50%/view.db")
    store.migrate()
    assert store.checkpoint() is None
    store.close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store(f"sqlite:///{tmp_path}/file/view.db")
    with pytest.raises(ViewUnavailable, match="is DATABASE_URL right"):
        store.migrate()


def test_again_changes_nothing(store: Store) -> None:
    batch = record(store, submitted(1))
    store.migrate()
    assert store.job(batch.jobs[0].id) == batch.jobs[0]


def test_migrations_and_tables_agree(store: Store) -> None:
    with store._database.writing() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []


def test_the_version_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(files("jobtape.view").joinpath("migrations")))
    assert ScriptDirectory.from_config(config).get_current_head() == tables.SCHEMA_VERSION


@pytest.mark.parametrize(("version", "advice"), [("0000", "jobtape init"), ("9999", "update Jobtape")])
def test_tables_of_another_version(store: Store, database_url: str, version: str, advice: str) -> None:
    with store._database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    other = Store(database_url)
    with pytest.raises(ViewUnavailable, match=advice):
        other.counts()
    with pytest.raises(ViewUnavailable, match=advice):
        other.create_checkpoint()
    other.close()
