"""How much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The size of a run. ``large``: measure with 1,000,000 jobs where that is asked, and not with fewer."""

    rounds: int = 3
    jobs: int = 10_000
    calls: int = 300
    load_seconds: float = 5.0
    delayed: int = 10_000
    spread: float = 20.0
    events: int = 150_000
    http_seconds: float = 3.0
    connections: int = 64
    reads: int = 100
    few: int = 10_000
    many: int = 100_000
    backlog: int = 50_000
    large: bool = False


QUICK = Plan(
    rounds=1,
    jobs=2_000,
    calls=100,
    load_seconds=2.5,
    delayed=1_000,
    spread=5.0,
    events=30_000,
    http_seconds=1.5,
    reads=30,
    few=2_000,
    many=10_000,
    backlog=10_000,
)
