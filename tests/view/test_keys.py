"""Idempotency keys: one row for one submission, also with concurrent callers."""

import random
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import text

from jobtape.view.store import Claim, KeyedSubmission, KeyState, Store
from tests.view.samples import NOON, at_once, job_id

LONG_AGO = 100_000.0  # seconds; longer than any lease or retention here
DAY = 86_400.0


def keyed(key: str, n: int = 1, digest: str = "d", at: datetime = NOON) -> KeyedSubmission:
    return KeyedSubmission(key, digest, job_id(n, at), at)


def claim(store: Store, submission: KeyedSubmission, *, scope: str = "api", owner: str = "me") -> Claim:
    return store.keys.claim(scope, owner, [submission], 30.0)[submission.key]


def age(store: Store, seconds: float = LONG_AGO) -> None:
    """Change all rows as if they had been written, and leased, so long ago."""
    with store._database.writing() as connection:
        connection.execute(text("UPDATE idempotency SET at = at - :s, lease_until = lease_until - :s"), {"s": seconds})


def test_key_stands_for_job_of_first_submission(store: Store) -> None:
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


def test_state_writes_nothing(store: Store) -> None:
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


def test_expired_key_is_taken_over_once_with_first_job(store: Store) -> None:
    claim(store, keyed("k", 1))
    age(store)
    taken = claim(store, keyed("k", 2), owner="other")
    assert (taken.state, taken.job_id, taken.time) == (KeyState.TAKEN_OVER, job_id(1), NOON)
    assert claim(store, keyed("k", 3), owner="third").state is KeyState.IN_FLIGHT
    store.keys.finish("me", released=[job_id(1)], unpublished=[job_id(1)])  # not its owner any more
    assert claim(store, keyed("k", 3), owner="third").state is KeyState.IN_FLIGHT
    store.keys.finish("me", accepted=[job_id(1)])  # anybody may report a confirm
    assert claim(store, keyed("k", 3), owner="third").state is KeyState.ACCEPTED


def test_released_key_is_taken_over_and_unpublished_key_is_new(store: Store) -> None:
    claim(store, keyed("a", 1))
    claim(store, keyed("b", 2))
    store.keys.finish("me", released=[job_id(1)], unpublished=[job_id(2)])
    assert claim(store, keyed("a", 3), owner="other").state is KeyState.TAKEN_OVER
    assert claim(store, keyed("b", 4), owner="other").state is KeyState.NEW
    store.keys.finish("other", accepted=[job_id(1), job_id(4)])
    store.keys.finish("other", released=[job_id(1)], unpublished=[job_id(4)])
    assert store.keys.accepted(job_id(1)) is True
    assert store.keys.accepted(job_id(4)) is True


def test_accepted_is_none_for_job_without_key(store: Store) -> None:
    assert store.keys.accepted(job_id(1)) is None
    claim(store, keyed("k", 1))
    assert store.keys.accepted(job_id(1)) is False
    store.keys.finish("me", accepted=[job_id(1)])
    assert store.keys.accepted(job_id(1)) is True


def test_keys_may_be_long_and_contain_special_characters(store: Store) -> None:
    every = "".join(map(chr, range(0x21, 0x7F)))
    strange = [every, "k" * 255, "'; DROP TABLE jobs; --", "%s", ":key"]
    for n, key in enumerate(strange):
        assert claim(store, keyed(key, n)).state is KeyState.NEW
        assert claim(store, keyed(key, 100 + n), owner="other").job_id == job_id(n)
    assert claim(store, keyed("K" * 255, 50)).state is KeyState.NEW, "case matters"


def test_batch_of_many_keys_is_claimed(store: Store) -> None:
    first = [keyed(f"k{n}", n) for n in range(2500)]
    assert {each.state for each in store.keys.claim("api", "me", first, 30).values()} == {KeyState.NEW}
    store.keys.finish("me", accepted=[each.job_id for each in first[:1200]], released=[first[2000].job_id])
    found = store.keys.claim("api", "other", [keyed(f"k{n}", 5000 + n) for n in range(3000)], 30)
    assert all(found[f"k{n}"].job_id == job_id(n) for n in range(2500))
    counted = {state: [each.state for each in found.values()].count(state) for state in KeyState}
    assert counted == {"new": 500, "taken_over": 1, "in_flight": 1299, "accepted": 1200, "reused": 0}


def test_concurrent_claims_give_each_key_one_owner(store: Store, database_url: str) -> None:
    """Threads claim the same keys in different orders on their own connections. There is no deadlock."""
    names = [f"k{n}" for n in range(40)]

    def one(thread: int) -> list[str]:
        own = Store(database_url)
        order = random.Random(thread).sample(names, len(names))
        won: list[str] = []
        for part in range(0, len(order), 10):
            asked = [keyed(key, thread * 1000 + names.index(key)) for key in order[part : part + 10]]
            found = own.keys.claim("api", f"{thread}-{part}", asked, 30)
            won += [key for key, each in found.items() if each.state is KeyState.NEW]
        own.close()
        return won

    won = [key for keys in at_once([partial(one, thread) for thread in range(8)]) for key in keys]
    assert sorted(won) == sorted(names)


def test_expired_key_is_taken_over_by_one_of_many(store: Store, database_url: str) -> None:
    claim(store, keyed("k", 1))
    age(store)

    def one(thread: int) -> KeyState:
        own = Store(database_url)
        found = own.keys.claim("api", str(thread), [keyed("k", 100 + thread)], 30)["k"]
        own.close()
        return found.state

    found = at_once([partial(one, thread) for thread in range(8)])
    assert found.count(KeyState.TAKEN_OVER) == 1
    assert found.count(KeyState.IN_FLIGHT) == 7


def test_prune_removes_old_keys_in_steps(store: Store) -> None:
    store.keys.claim("api", "me", [keyed(f"old{n}", n) for n in range(25)], 30)
    age(store)
    store.keys.claim("api", "me", [keyed(f"new{n}", 100 + n) for n in range(5)], 30)
    assert [store.keys.prune(DAY, 10) for _ in range(4)] == [10, 10, 5, 0]
    assert claim(store, keyed("old1", 200), owner="other").state is KeyState.NEW
    assert claim(store, keyed("new1", 201), owner="other").state is KeyState.IN_FLIGHT
