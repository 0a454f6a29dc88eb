"""Where a measurement runs: the options for broker and database that all of them have, and an installation on both."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.brokers import Broker, broker
from benchmarks.installation import Installation, installation
from tests.databases import start_session_postgres
from tools.brokers.amqp import probe


def options(doc: str | None) -> argparse.ArgumentParser:
    """A parser with ``--broker`` and ``--database``; ``doc`` is the measurement's own docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--broker",
        choices=["url", "node", "container"],
        default="url",
        help="the one at RABBITMQ_URL, or one of its own: the installed RabbitMQ, or 4.0 under Docker",
    )
    parser.add_argument(
        "--database", default="sqlite", help="sqlite, postgresql (a server of its own, without fsync), or a URL"
    )
    return parser


@contextmanager
def place(
    wanted: argparse.Namespace, *, jobs: str, queues: Sequence[str] = ("default",)
) -> Iterator[tuple[Broker, Installation]]:
    """The broker, and an installation of which nothing is started yet, as ``options`` were given; removed afterwards.

    ``jobs`` is their module, ``queues`` those that they are on. Says what it runs on, and how busy the machine is.
    """
    with (
        broker(wanted.broker) as chosen,
        _database(wanted.database) as (database_url, database),
        installation(jobs=jobs, queues=queues, broker_url=chosen.url, database_url=database_url) as made,
    ):
        print(f"RabbitMQ {probe(chosen.url).version}, {database}, {_load()}", flush=True)
        yield chosen, made
        print(_load(), flush=True)


@contextmanager
def _database(wanted: str) -> Iterator[tuple[str | None, str]]:
    """Its URL (None: a file of the installation's own) and what it is called."""
    if wanted == "postgresql":
        server = start_session_postgres()
        try:
            yield server.url, server.description
        finally:
            server.stop()
    elif wanted == "sqlite":
        yield None, "SQLite"
    else:
        yield wanted, wanted.partition(":")[0]


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
