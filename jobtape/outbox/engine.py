"""The engine for ``JOBTAPE_OUTBOX_URL``, where no application has one."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine

from jobtape.view.sql.urls import parse_url


@contextmanager
def opened_engine(url: str | None) -> Iterator[Engine | None]:
    """Give the engine for ``url`` for the block, None without a URL. It connects at its first use.

    The driver in the URL is replaced by ours. Raises JobtapeError, which describes the valid forms.
    """
    if url is None:
        yield None
        return
    engine = create_engine(parse_url(url, "JOBTAPE_OUTBOX_URL"), pool_size=2, hide_parameters=True)
    try:
        yield engine
    finally:
        engine.dispose()
