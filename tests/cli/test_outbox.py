"""``jobtape outbox`` forwards jobs, and shows and removes those that cannot be forwarded."""

import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from tests.cli.installation import Installation
from tests.cli.programs import until
from tests.faults.jobs import add, nap
from tests.outbox.user_database import UserDatabase, inbox, outbox, user_database


def test_outbox_forwards_until_it_is_stopped(broker_installation: Installation, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    broker_installation.run("init")
    with user_database(url) as users:
        with Session(users.engine) as session, session.begin():
            add.submit_in_sync(session, x=1, y=2)
            unknown = nap.submit_in_sync(session, seconds=0.0)
        program = broker_installation.start("outbox", "--url", url)
        until(lambda: users.rows(outbox) == 1, f"one row is forwarded: {program.lines}")
        program.line_with("1 jobs of the outbox cannot be published", unknown.id, "there is no job type 'nap' here")
        program.send(signal.SIGTERM)
        assert program.code() == 0, program.lines


def test_outbox_shows_and_removes_what_cannot_be_published(installation: Installation, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    with user_database(url) as users:
        with Session(users.engine) as session, session.begin():
            refused = add.submit_in_sync(session, x=1, y=2)
            waiting = add.submit_in_sync(session, x=1, y=2)
        _refuse(users, refused.id)
        installation.env["JOBTAPE_OUTBOX_URL"] = url
        shown = installation.run("outbox", "--list")
        assert shown.stdout.startswith("2 jobs wait, the first one for "), shown.stderr
        assert "1 of them cannot be published" in shown.stdout
        assert f"{refused.id}  add  " in shown.stdout
        assert "no such type" in shown.stdout
        found = json.loads(installation.run("outbox", "--url", url, "--list", "--json").stdout)
        assert (found["depth"], found["refused"]) == (2, 1)
        assert [(item["job_id"], item["error"]) for item in found["items"]] == [(refused.id, "no such type")]

        findings = json.loads(installation.run("doctor", "--json").stdout)["findings"]
        assert [(each["level"], each["what"]) for each in findings if each["part"] == "outbox"] == [
            ("wrong", "1 jobs cannot be published"),
        ]
        with users.engine.begin() as connection:
            long_ago = datetime.now(UTC) - timedelta(hours=1)
            connection.execute(update(outbox).where(outbox.c.job_id == waiting.id).values(submitted_at=long_ago))
        findings = json.loads(installation.run("doctor", "--json").stdout)["findings"]
        (late,) = [each for each in findings if "the oldest for" in each["what"]]
        assert late["what"].startswith("1 jobs wait, the oldest for 36")
        assert "`jobtape outbox`" in late["todo"]

        kept = installation.run("outbox", "--url", url, "--remove", waiting.id)
        assert (kept.returncode, users.rows(outbox)) == (1, 2)
        assert "in the outbox that cannot be published" in kept.stderr
        assert installation.run("outbox", "--url", url, "--remove", refused.id).returncode == 0
        assert users.rows(outbox) == 1


def test_old_rows_of_the_inbox_are_pruned(installation: Installation, database_url: str) -> None:
    now = datetime.now(UTC)
    with user_database(database_url) as users:
        with users.engine.begin() as connection:
            connection.execute(
                insert(inbox),
                [
                    {"job_id": f"{age}-{n}", "run": 1, "step": "", "recorded_at": now - timedelta(days=age, hours=1)}
                    for age in (2, 3)
                    for n in range(1200)
                ],
            )
        pruned = installation.run("outbox", "--url", database_url, "--prune-inbox", "3")
        assert pruned.stdout == "1200 rows of the inbox were removed\n", pruned.stderr
        with users.engine.begin() as connection:
            left = connection.scalars(select(inbox.c.job_id)).all()
        assert len(left) == 1200
        assert {each[0] for each in left} == {"2"}
    refused = installation.run("outbox", "--url", database_url, "--prune-inbox", "0")
    assert refused.returncode == 2


def test_outbox_says_what_is_missing(installation: Installation, tmp_path: Path) -> None:
    without = installation.run("outbox")
    assert (without.returncode, without.stdout) == (2, "")
    assert "give --url, or set JOBTAPE_OUTBOX_URL" in without.stderr
    wrong = installation.run("outbox", "--url", "mysql://me:secret@host/shop")
    assert wrong.returncode == 2
    assert "JOBTAPE_OUTBOX_URL begins with mysql" in wrong.stderr
    assert "secret" not in wrong.stderr
    empty = installation.run("outbox", "--list", "--url", f"sqlite:///{tmp_path / 'empty.db'}")
    assert empty.returncode == 1
    assert "add outbox_table(metadata) to your tables and run your migrations" in empty.stderr


def _refuse(users: UserDatabase, job_id: str) -> None:
    with users.engine.begin() as connection:
        connection.execute(update(outbox).where(outbox.c.job_id == job_id).values(error="no such type"))
