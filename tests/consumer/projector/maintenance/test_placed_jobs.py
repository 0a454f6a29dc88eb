"""What is known of a queue, compared with a queue that is simulated: no broker, no database."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from jobtape.consumer.projector.maintenance.placed_jobs import MOST, PlacedJobs

STEPS = st.lists(st.sampled_from(["place", "lose", "take", "begin", "return", "repeat"]), max_size=60)


@dataclass
class Simulated:
    """A queue and one worker. Returned work comes to the head of the queue, and the worker's signs are complete."""

    jobs: PlacedJobs = field(default_factory=PlacedJobs)
    cursor: int = 0
    queue: list[str] = field(default_factory=list)
    worker: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def step(self, name: str) -> None:
        self.cursor += 1
        job_id = f"j{self.cursor}"
        if name in {"place", "lose"}:
            self.jobs.place(job_id, self.cursor)
            if name == "place":
                self.queue.append(job_id)
            else:
                self.lost.add(job_id)
        elif name == "take" and self.queue:
            self.worker.append(self.queue.pop(0))
        elif name == "begin" and self.worker:
            self.jobs.remove(self.worker.pop(0), came_off=True)
        elif name == "return":
            self.queue[:0] = self.worker
            self.worker.clear()
        elif name == "repeat" and self.lost:
            again = self.lost.pop()
            self.jobs.place(again, self.cursor)
            self.queue.append(again)
        for each in self.worker:
            self.jobs.name(each, self.cursor)


@given(STEPS)
def test_only_what_is_not_on_the_queue_counts_as_passed(steps: list[str]) -> None:
    queue = Simulated()
    for step in steps:
        queue.step(step)
        found = queue.jobs.not_on_queue(queue.cursor, empty=not queue.queue)
        assert not set(found) & set(queue.queue)
        assert len(queue.jobs) == len(queue.queue) + len(queue.worker) + len(queue.lost)


@given(STEPS)
def test_all_lost_work_is_found_when_later_work_has_begun(steps: list[str]) -> None:
    queue = Simulated()
    for step in [*steps, "place"]:
        queue.step(step)
    while queue.queue or queue.worker:
        queue.step("take")
        queue.step("begin")
    assert set(queue.jobs.not_on_queue(queue.cursor, empty=False)) == queue.lost


def test_jobs_beyond_the_limit_are_read_later() -> None:
    jobs = PlacedJobs()
    for n in range(MOST + 2):
        jobs.place(f"j{n}", n)
    assert (len(jobs), jobs.complete) == (MOST, False)
    for n in range(MOST):
        jobs.remove(f"j{n}", came_off=True)
    jobs.begin_to_read()
    jobs.remove("gone")
    jobs.place("new", MOST + 2)
    jobs.add({"gone": MOST - 1, f"j{MOST}": MOST, f"j{MOST + 1}": MOST + 1}, since=0, complete=True)
    assert (jobs.complete, jobs.oldest()) == (True, MOST)
    assert [each in jobs for each in (f"j{MOST}", f"j{MOST + 1}", "new", "gone")] == [True, True, True, False]
    jobs.remove("new", came_off=True)
    assert jobs.not_on_queue(MOST, empty=False) == [f"j{MOST}"]
    jobs.doubt_from(MOST + 3)
    assert jobs.not_on_queue(MOST + 3, empty=False) == []
