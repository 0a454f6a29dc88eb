"""What the lines of executions say about ordering keys."""

from benchmarks.areas.gates import Line, Order, order_of


def lines(text: str) -> list[Line]:
    """Each word is begin or end, the job's number, its fence and its worker: ``b0/5/1``."""
    found = []
    for word in text.split():
        n, fence, pid = word[1:].split("/")
        found.append(Line("begin" if word[0] == "b" else "end", "ordered", "k", int(n), int(fence), int(pid), 0.0))
    return found


def test_jobs_one_after_the_other_are_in_order() -> None:
    assert order_of(lines("b0/1/1 e0/1/1 b1/2/2 e1/2/2"), set()) == Order(begun=2)


def test_execution_of_killed_worker_is_cut_off_and_repeated() -> None:
    assert order_of(lines("b0/1/1 b0/1/2 e0/1/2"), {1}) == Order(begun=2, repeated=1, cut_off=1)


def test_overlap_without_a_kill_is_counted() -> None:
    assert order_of(lines("b0/1/1 b1/2/2 e1/2/2 e0/1/1"), set()) == Order(begun=2, at_once=1, refused=1)


def test_late_write_of_an_older_placement_is_refused() -> None:
    assert order_of(lines("b0/1/1 e0/1/1 b1/2/2 e1/2/2 b0/1/1 e0/1/1"), set()) == Order(begun=3, repeated=1, refused=1)


def test_job_that_begins_before_an_earlier_one_is_out_of_order() -> None:
    assert order_of(lines("b1/1/1 e1/1/1 b0/2/1 e0/2/1"), set()).out_of_order == 2
