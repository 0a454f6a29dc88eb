"""An application that submits a job in each of its transactions: ``python -m tests.outbox.shop '<JSON>'``.

Every second transaction is rolled back. It goes on after the last committed one, forwards its outbox meanwhile, and
ends when that is empty. Settings come from the environment.
"""

import asyncio
import json
import sys
from contextlib import suppress

from sqlalchemy import func, insert, select

import jobtape
from tests.faults.jobs import add
from tests.outbox.user_database import Kind, UserDatabase, orders, outbox, submit, user_database
from tests.waiting import eventually


class RolledBack(Exception):
    """Ends a transaction without its changes."""


async def transact(users: UserDatabase, kind: Kind, n: int) -> None:
    """Write an order and its job. The transactions of odd numbers are rolled back."""
    with suppress(RolledBack):
        async with users.transaction(kind) as session:
            job = await submit(session, kind, add, x=n, y=1)
            statement = insert(orders).values(n=n, job_id=job.id)
            if kind.startswith("async"):
                await session.execute(statement)
            else:
                session.execute(statement)
            if n % 2:
                raise RolledBack


async def run(url: str, kind: Kind, transactions: int) -> None:
    """Do the transactions that are left."""
    with user_database(url) as users:
        engine = users.async_engine if kind.startswith("async") else users.engine
        with users.engine.begin() as connection:
            last = connection.scalar(select(func.max(orders.c.n)))
        async with jobtape.lifespan(job_types=[add], outbox=engine):
            for n in range(0 if last is None else last + 1, transactions):
                if kind.startswith("async"):
                    await transact(users, kind, n)
                else:
                    await asyncio.to_thread(asyncio.run, transact(users, kind, n))
            await eventually(lambda: users.rows(outbox) == 0, 60)
        await users.async_engine.dispose()


if __name__ == "__main__":
    asyncio.run(run(*json.loads(sys.argv[1])))
