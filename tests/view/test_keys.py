"""Idempotency keys: one row for one submission, whoever comes at once."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from sqlalchemy import text

from jobtape.view.store import Claim, KeyedSubmission, KeyState, Store
from tests.view.samples import NOON, job_id

LONG_AGO = 100_000.0  # seconds; longer than any lease or retention here
DAY = 86_400.0


def keyed(key: str, n: int = 1, digest: str = "d", at: datetime = NOON) -> KeyedSubmission:
    return KeyedSubmission(key, digest, job_id(n, at), at)


def claim(store: Store, submission: KeyedSubmission, *, scope: str = "api", owner: str = "me") -> Claim:
    return store.keys.claim(scope, owner, [submission], 30.0)[submission.key]


def age(store: Store, seconds: float = LONG_AGO) -> None:
    """As if all rows had been written, and leased, so long ago."""
    with store._database.writing() as connection:
        connection.execute(text("UPDATE idempotency SET at = at - :s, lease_until = lease_until - :s"), {"s": seconds})


def test_the_first_is_new_and_all_others_are_told_of_its_job(store: Store) -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    first = claim(store, keyed("k", 1, at=at))
    assert (first.state, first.job_id, first.time) == (KeyState.NEW, job_id(1, at), at)
    second = claim(store, keyed("k", 2), owner="other")
    assert (second.state, second.job_id, second.time) == (KeyState.IN_FLIGHT, job_id(1, at), at)
    assert 0 < second.lease_left <= 30
    assert claim(store, keyed("k", 3, digest="e"), owner="other").state is KeyState.REUSED
    store.keys.finish("me", accepted=[job_id(1, at)])
    assert claim(store, keyed("k", 4), owner="other").state is KeyState.ACCEPTED
    assert claim(store, keyed("k", 5, digest="e"), owner="other").state is KeyState.REUSED
    assert claim(store, keyed("k", 6), scope="another", owner="other").state is KeyState.NEW


def test_looking_writes_nothing(store: Store) -> None:
    assert store.keys.state("api", keyed("k")) is None
    assert claim(store, keyed("k")).state is KeyState.NEW
    for n in (1, 2):
        seen = store.keys.state("api", keyed("k", n))
        assert seen is not None
        assert (seen.state, seen.job_id) == (KeyState.IN_FLIGHT, job_id(1))
    age(store)
    seen = store.keys.state("api", keyed("k", 2))
    assert seen is not None
    assert seen.state is KeyState.TAKEN_OVER
    assert claim(store, keyed("k", 2), owner="other").state is KeyState.TAKEN_OVER


def test_an_expired_lease_is_taken_over_once_with_the_first_job(store: Store) -> None:
    claim(store, keyed("k", 1))
    age(store)
    taken = claim(store, keyed("k", 2), owner="other")
    assert (taken.state, taken.job_id, taken.time) == (KeyState.TAKEN_OVER, job_id(1), NOON)
    assert claim(store, keyed("k", 3), owner="third").state is KeyState.IN_FLIGHT
    store.keys.finish("me", released=[job_id(1)], unpublished=[job_id(1)])  # no longer its owner
    assert claim(store, keyed("k", 3), owner="third").state is KeyState.IN_FLIGHT
    store.keys.finish("me", accepted=[job_id(1)])  # but a confirm is a confirm
    assert claim(store, keyed("k", 3), owner="third").state is KeyState.ACCEPTED


def test_what_was_let_go_is_taken_over_and_what_was_forgotten_is_new(store: Store) -> None:
    claim(store, keyed("a", 1))
    claim(store, keyed("b", 2))
    store.keys.finish("me", released=[job_id(1)], unpublished=[job_id(2)])
    assert claim(store, keyed("a", 3), owner="other").state is KeyState.TAKEN_OVER
    assert claim(store, keyed("b", 4), owner="other").state is KeyState.NEW
    store.keys.finish("other", accepted=[job_id(1), job_id(4)])
    store.keys.finish("other", released=[job_id(1)], unpublished=[job_id(4)])
    assert store.keys.accepted(job_id(1)) is True
    assert store.keys.accepted(job_id(4)) is True


def test_whether_a_job_came_with_a_key(store: Store) -> None:
    assert store.keys.accepted(job_id(1)) is None
    claim(store, keyed("k", 1))
    assert store.keys.accepted(job_id(1)) is False
    store.keys.finish("me", accepted=[job_id(1)])
    assert store.keys.accepted(job_id(1)) is True


def test_keys_at_their_longest_and_strangest(store: Store) -> None:
    every = "".join(map(chr, range(0x21, 0x7F)))
    strange = [every, "k" * 255, "'; DROP TABLE jobs; --", "%s", ":key"]
    for n, key in enumerate(strange):
        assert claim(store, keyed(key, n)).state is KeyState.NEW
        assert claim(store, keyed(key, 100 + n), owner="other").job_id == job_id(n)
    assert claim(store, keyed("K" * 255, 50)).state is KeyState.NEW, "case matters"


def test_a_batch_of_many_keys_in_one_transaction(store: Store) -> None:
    first = [keyed(f"k{n}", n) for n in range(2500)]
    assert {each.state for each in store.keys.claim("api", "me", first, 30).values()} == {KeyState.NEW}
    store.keys.finish("me", accepted=[each.job_id for each in first[:1200]], released=[first[2000].job_id])
    found = store.keys.claim("api", "other", [keyed(f"k{n}", 5000 + n) for n in range(3000)], 30)
    assert all(found[f"k{n}"].job_id == job_id(n) for n in range(2500))
    counted = {state: [each.state for each in found.values()].count(state) for state in KeyState}
    assert counted == {"new": 500, "taken_over": 1, "in_flight": 1299, "accepted": 1200, "reused": 0}


def test_at_once_each_key_has_one_owner(store: Store, database_url: str) -> None:
    """Threads with connections of their own claim the same keys in different orders; nobody waits for ever."""
    names = [f"k{n}" for n in range(40)]
    start = threading.Barrier(8)

    def one(thread: int) -> list[str]:
        own = Store(database_url)
        order = random.Random(thread).sample(names, len(names))
        start.wait()
        won: list[str] = []
        for part in range(0, len(order), 10):
            asked = [keyed(key, thread * 1000 + names.index(key)) for key in order[part : part + 10]]
            found = own.keys.claim("api", f"{thread}-{part}", asked, 30)
            won += [key for key, each in found.items() if each.state is KeyState.NEW]
        own.close()
        return won

    with ThreadPoolExecutor(8) as pool:
        won = [key for keys in pool.map(one, range(8)) for key in keys]
    assert sorted(won) == sorted(names)


def test_an_expired_lease_is_taken_over_by_one_of_many(store: Store, database_url: str) -> None:
    claim(store, keyed("k", 1))
    age(store)
    start = threading.Barrier(8)

    def one(thread: int) -> KeyState:
        own = Store(database_url)
        start.wait()
        found = own.keys.claim("api", str(thread), [keyed("k", 100 + thread)], 30)["k"]
        own.close()
        return found.state

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(8)))
    assert found.count(KeyState.TAKEN_OVER) == 1
    assert found.count(KeyState.IN_FLIGHT) == 7


def test_old_rows_go_in_small_steps(store: Store) -> None:
    store.keys.claim("api", "me", [keyed(f"old{n}", n) for n in range(25)], 30)
    age(store)
    store.keys.claim("api", "me", [keyed(f"new{n}", 100 + n) for n in range(5)], 30)
    assert [store.keys.prune(DAY, 10) for _ in range(4)] == [10, 10, 5, 0]
    assert claim(store, keyed("old1", 200), owner="other").state is KeyState.NEW
    assert claim(store, keyed("new1", 201), owner="other").state is KeyState.IN_FLIGHT
