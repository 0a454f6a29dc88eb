"""The migrations create the tables once, whoever starts them."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from jobtape.schemas.errors import ViewUnavailable
from jobtape.view import tables
from jobtape.view.store import Store
from tests.view.samples import at_once, record, submitted

MIGRATE = """
import sys
from jobtape.view.store import Store
store = Store(sys.argv[1])
sys.stdin.readline()
store.migrate()
print(store.create_checkpoint())
"""


def test_concurrent_processes_migrate_once(database_url: str, empty: Store) -> None:
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


def test_concurrent_threads_migrate_once(database_url: str) -> None:
    def migrate() -> None:
        store = Store(database_url)
        store.migrate()
        store.close()

    at_once([migrate] * 4)


def test_migrate_creates_folder(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/new/folder/50%/view.db")
    store.migrate()
    assert store.checkpoint() is None
    store.close()


def test_migrate_without_possible_folder_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store(f"sqlite:///{tmp_path}/file/view.db")
    with pytest.raises(ViewUnavailable, match="is DATABASE_URL right"):
        store.migrate()


def test_repeated_migrate_changes_nothing(store: Store) -> None:
    batch = record(store, submitted(1))
    store.migrate()
    assert store.job(batch.jobs[0].id) == batch.jobs[0]


def test_migrations_create_the_tables(store: Store) -> None:
    with store._database.writing() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []


def test_schema_version_is_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(files("jobtape.view").joinpath("migrations")))
    assert ScriptDirectory.from_config(config).get_current_head() == tables.SCHEMA_VERSION


@pytest.mark.parametrize(("version", "advice"), [("0000", "jobtape init"), ("9999", "update Jobtape")])
def test_tables_of_another_version_are_unavailable(store: Store, database_url: str, version: str, advice: str) -> None:
    with store._database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    other = Store(database_url)
    with pytest.raises(ViewUnavailable, match=advice):
        other.counts()
    with pytest.raises(ViewUnavailable, match=advice):
        other.create_checkpoint()
    other.close()


def test_destroy_removes_our_tables_only(store: Store, database_url: str) -> None:
    with store._database.writing() as connection:
        for name in ("jobs_g7", "jobs_of_others"):
            connection.execute(text(f"CREATE TABLE {name} (id int)"))
    store.destroy()
    with pytest.raises(ViewUnavailable):
        store.checkpoint()
    store.migrate()
    assert store.checkpoint() is None
    with store._database.reading() as connection:
        left = {name for name in inspect(connection).get_table_names() if name.startswith("jobs_")}
    assert left == (set() if store.dialect == "sqlite" else {"jobs_of_others"})
