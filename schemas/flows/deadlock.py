"""Jobs that wait for each other.

A job that waits for its follow-ups keeps its ordering key and its unique key meanwhile (``Gates.slots``). A follow-up
of it may need the key of another job that waits for follow-ups, one of which needs the key of the first job. Then none
of them would ever go on.
"""

from collections.abc import Iterable
from typing import NamedTuple

from jobtape.schemas.queueing.gates import Gate


class Wait(NamedTuple):
    """The held job ``job`` needs ``gate``, which ``holder`` keeps until its follow-ups have ended. ``waiting``: the
    jobs that wait for the end of ``job``, as follow-up or as a job of a flow, directly or not.
    """

    job: str
    gate: Gate
    holder: str
    waiting: tuple[str, ...]


def deadlock(waits: Iterable[Wait]) -> tuple[Wait, list[str]] | None:
    """Return holders that wait for each other, each followed by the one that it waits for, and of the waits between
    them that of the youngest job, which is to end. None if there are none.
    """
    following: dict[str, dict[str, Wait]] = {}
    for wait in sorted(waits):  # of several waits between two jobs the youngest
        for job in wait.waiting:
            following.setdefault(job, {})[wait.holder] = wait
    done: set[str] = set()
    for start in sorted(following):
        path = [start]
        left = [sorted(following[start])]
        while path:
            if not left[-1]:
                done.add(path.pop())
                left.pop()
            elif (job := left[-1].pop()) in path:
                circle = path[path.index(job) :]
                between = [following[one][other] for one, other in zip(circle, [*circle[1:], job], strict=True)]
                return max(between), circle
            elif job not in done:
                path.append(job)
                left.append(sorted(following.get(job, ())))
    return None
