"""A store on each database: the same suite holds for both. PostgreSQL is a schema of its own in a running server."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from jobtape.view.store import Store

SERVER = os.environ.get("JOBTAPE_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test")


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty schema; a server that isn't there is a failure, not a reason to skip."""
    schema = f"view_{uuid.uuid4().hex}"
    with psycopg.connect(SERVER, autocommit=True) as admin:
        admin.execute(f"CREATE SCHEMA {schema}".encode())
        try:
            yield f"{SERVER}?options=-csearch_path%3D{schema}"
        finally:
            admin.execute(f"DROP SCHEMA {schema} CASCADE".encode())


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/folder/view.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture
def empty(url: str) -> Iterator[Store]:
    """A store without tables."""
    store = Store(url, patience=2.0)
    yield store
    store.close()


@pytest.fixture
def store(empty: Store) -> Store:
    """A store with tables, a checkpoint at the start, and a lease of the owner "me"."""
    empty.migrate()
    assert empty.create_checkpoint()
    assert empty.take_lease("me", 60) is not None
    return empty
