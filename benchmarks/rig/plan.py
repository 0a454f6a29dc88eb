"""How much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The size of a run. ``long_rounds``: rounds of what takes minutes and has thousands of values in one round."""

    rounds: int = 3
    long_rounds: int = 1
    jobs: int = 10_000
    calls: int = 300
    load_seconds: float = 3.5
    delayed: int = 10_000
    spread: float = 20.0
    events: int = 100_000
    http_seconds: float = 2.5
    connections: int = 64
    reads: int = 200
    few: int = 10_000
    many: int = 50_000
    backlog: int = 30_000
    gated: int = 10_000
    keys: int = 100
    limited: int = 200
    limited_seconds: float = 0.5
    rated_seconds: float = 60.0
    schedules: int = 200
    schedule_seconds: float = 120.0
    databases: tuple[str, ...] = ("sqlite", "postgresql")
    """With which Jobtape is measured where its database is not the subject."""


QUICK = Plan(
    rounds=1,
    jobs=1_000,
    calls=50,
    load_seconds=1.5,
    delayed=500,
    spread=2.0,
    events=9_000,
    http_seconds=1.0,
    reads=30,
    few=500,
    many=3_000,
    backlog=3_000,
    gated=1_000,
    keys=20,
    limited=40,
    rated_seconds=5.0,
    schedules=20,
    schedule_seconds=12.0,
    databases=("sqlite",),
)
