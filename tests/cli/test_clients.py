"""Tests the commands that use the REST API: with a running Jobtape, and without one."""

import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import anyio
import httpx
import pytest

from jobtape.broker.declare import remove_namespace
from tests.cli.installation import Installation, installation_in
from tests.cli.programs import until
from tests.namespaces import environment_for, some_topology


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> Iterator[Installation]:
    """Run one ``jobtape up`` for all tests of this module."""
    topology = some_topology("default", "gates")
    made = installation_in(tmp_path_factory.mktemp("cli"), **environment_for(broker_url, topology))
    made.env["JOBTAPE_API_KEY"] = "a-key-for-tests"
    made.up()
    yield made
    made.close()
    anyio.run(remove_namespace, broker_url, topology)


def test_submit_wait_prints_only_the_result(running: Installation) -> None:
    done = running.run("submit", "add", "-", "--wait", stdin='{"x": 1, "y": 2}')
    assert (done.returncode, done.stdout) == (0, "3\n")
    assert done.stderr.splitlines()[-1] == "succeeded"


def test_submit_reads_payload_from_file(running: Installation) -> None:
    (running.folder / "payload.json").write_text('{"x": 1, "y": 2}')
    assert running.run("submit", "add", "@payload.json", "--wait").stdout == "3\n"


def test_submit_under_same_key_is_one_job(running: Installation) -> None:
    for key in ("order-7", 'a"b\\c'):
        payload = {"x": 1, "y": 2}
        first = running.submit("add", payload, "--idempotency-key", key)
        assert running.submit("add", payload, "--idempotency-key", key) == first
        assert running.run("submit", "add", json.dumps(payload), "--idempotency-key", key, "--wait").stdout == "3\n"
        other = running.run("submit", "add", '{"x": 2, "y": 2}', "--idempotency-key", key)
        assert other.returncode == 1
        assert "repeat that one as it was, or take a new key" in other.stderr


def test_submit_passes_its_options_on(running: Installation) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    more = ("--run-at", tomorrow, "--max-attempts", "3", "--correlation-id", "c", "--label", "a=b")
    job = json.loads(running.run("submit", "add", '{"x": 1, "y": 2}', *more, "--json").stdout)
    assert (job["state"], job["run_at"][:19], job["max_attempts"]) == ("scheduled", tomorrow[:19], 3)
    assert (job["correlation_id"], job["labels"]) == ("c", {"a": "b"})
    both = running.run("submit", "add", '{"x": 1, "y": 2}', "--delay", "3600", "--run-at", tomorrow)
    assert both.returncode != 0 and "give one of them" in both.stderr


def test_submit_then_runs_a_chain(running: Installation) -> None:
    following = ("--then", '{"type": "add", "payload": {"x": {"$previous": ""}, "y": 10}}')
    done = running.run("submit", "add", '{"x": 1, "y": 2}', *following, "--wait")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"add-2": 13})
    wrong = running.run("submit", "add", '{"x": 1, "y": 2}', "--then", "add")
    assert wrong.returncode != 0 and "--then is not JSON" in wrong.stderr


def test_submit_to_a_lane_that_the_queue_does_not_have_is_refused(running: Installation) -> None:
    refused = running.run("submit", "add", '{"x": 1, "y": 2}', "--lane", "low")
    assert refused.returncode != 0 and "the queue default has no lanes" in refused.stderr


def test_flow_is_submitted_and_its_nodes_are_listed(running: Installation) -> None:
    nodes = {
        "one": {"type": "add", "payload": {"x": 1, "y": 2}},
        "two": {"type": "add", "payload": {"x": {"$from": "one"}, "y": 4}},
        "never": {"type": "add", "after": ["two"], "on": "failure", "payload": {"x": 0, "y": 0}},
    }
    done = running.run(
        "flows", "submit", json.dumps({"nodes": nodes, "labels": {"a": "b"}}), "--wait", "--label", "team=a"
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, {"two": 7}), done.stderr
    flow_id = done.stderr.split()[1]
    assert flow_id in running.run("list", "--label", "a=b", "--label", "team=a", "--json").stdout
    listed = running.run("flows", "nodes", flow_id).stdout.splitlines()
    assert [line.split()[:3] for line in listed] == [
        ["one", "add", "succeeded"],
        ["two", "add", "succeeded"],
        ["never", "add", "skipped"],
    ]
    skipped = json.loads(running.run("flows", "nodes", flow_id, "--state", "skipped", "--json").stdout)
    assert [node["name"] for node in skipped["items"]] == ["never"]
    of_node = running.run("list", "--flow", flow_id, "--node", "two", "--state", "succeeded", "--json").stdout
    assert [job["node"] for job in json.loads(of_node)["items"]] == ["two"]


def test_submit_wait_of_failed_job_prints_error(running: Installation) -> None:
    done = running.run("submit", "boom", json.dumps({"text": "no\x1b[31m\r\nway"}), "--wait")
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("jobtape: job ")
    assert last.endswith(r"failed: ValueError: no\x1b[31m\r\nway"), "control characters are escaped"
    assert "jobs_here.py" in done.stderr
    assert "\x1b" not in done.stderr


def test_schedules_sync_puts_those_of_the_code_in_force(running: Installation) -> None:
    """Only when it is called: neither the import of the module nor ``jobtape up`` does."""
    assert running.run("schedules", "list").stdout == ""
    assert running.run("schedules", "sync", "--dry-run").stdout == "sweep  would be created\n"
    assert running.run("schedules", "list").stdout == ""
    assert running.run("schedules", "sync").stdout == "sweep  created\n"
    assert running.run("schedules", "sync").stdout == "sweep  unchanged\n"
    listed = running.run("schedules", "list").stdout
    assert listed.startswith("sweep  30 2 * * * Europe/Berlin  sweep  2")
    ticks = running.run("schedules", "ticks", "sweep", "-n", "2").stdout.splitlines()
    assert [line[10:16] for line in ticks] == ["T02:30", "T02:30"]
    put = running.run("schedules", "put", "adds", "add", '{"x": 1, "y": 2}', "--every", "3600", "--spread", "60")
    assert put.stdout.startswith("adds is in force by the job ")
    assert running.run("schedules", "pause", "adds").stdout == "adds paused\n"
    filled = running.run("schedules", "backfill", "adds", "--since", "2026-01-01T00:00:00Z", "--limit", "2").stdout
    assert filled.splitlines()[-1].startswith("2 submitted, 0 existed; continue with --since 2026-01-01T02:")
    job_id = running.run("schedules", "trigger", "adds").stdout.strip()
    assert running.run("status", job_id, "--watch").returncode == 0
    assert running.run("schedules", "delete", "adds").stdout == "adds deleted\n"
    assert "there is no schedule 'adds'" in running.run("schedules", "resume", "adds").stderr
    assert running.run("schedules", "delete", "sweep").returncode == 0
    assert running.run("schedules", "put", "sweep", "add", '{"x": 1, "y": 2}', "--every", "60").returncode == 0
    refused = running.run("schedules", "sync")
    assert (refused.returncode, refused.stdout.split()[:2]) == (1, ["sweep", "refused:"])


def test_simulate_shows_waits_under_other_limits(running: Installation) -> None:
    """Of a job that was redriven, its latest run counts."""
    ids = [running.submit("add", {"x": 1, "y": n}, "--label", f"tenant={n % 2}") for n in range(4)]
    for job_id in ids:
        assert running.run("status", job_id, "--watch").returncode == 0
    running.run("redrive", ids[0])

    def is_done_again() -> bool:
        job = json.loads(running.run("status", ids[0], "--json").stdout)
        return (job["run"], job["state"]) == (2, "succeeded")

    until(is_done_again, "the job has run again")
    found = json.loads(
        running.run("simulate", "--limits", "add=1@label:tenant", "--limits", "add=2/3600", "--json").stdout
    )
    whole, *gates = found["gates"]
    assert (whole["gate"], whole["jobs"]) == ("all jobs", found["jobs"])
    by_key = {(each["gate"], each["key"]): each for each in gates}
    assert by_key["add: 1 at once", "label:tenant=0"]["jobs"] == 2
    rate = by_key["add: 2 in 3600 s", ""]
    assert rate["would_wait"]["max"] >= 3600
    table = running.run("simulate", "--limits", "add=2/3600").stdout.splitlines()
    assert [line.split("  ")[0] for line in table[:3]] == ["limit", "all jobs", "add: 2 in 3600 s"]
    sweep = running.run("simulate", "--limits", "sweep=5@label:tenant", "--limits", "sweep=4", "--json")
    assert sweep.returncode == 0, "a limit by key besides the one of the code"
    for wrong, message in (
        ("add", "write NAME=NUMBER"),
        ("ad=5", "no limit and no job type"),
        ("add=5@z", "no parameter"),
    ):
        refused = running.run("simulate", "--limits", wrong)
        assert refused.returncode == 2
        assert message in refused.stderr


def test_limits_are_listed(running: Installation) -> None:
    running.run("limit", "mail", "10", "--per", "60", "--key", "tenant=a")
    assert running.run("limits").stdout == "mail for tenant=a  at most 10 per 60 s\n"
    running.run("limit", "mail", "--key", "tenant=a")
    assert running.run("limits").stdout == ""


def test_cancel(running: Installation) -> None:
    headers = {"Authorization": f"Bearer {running.env['JOBTAPE_API_KEY']}"}
    order = {"type": "add", "payload": {"x": 1, "y": 2}, "delay": 3600}
    url = f"{running.env['JOBTAPE_URL']}/jobs"
    job_id = httpx.post(url, json=order, headers=headers, trust_env=False).json()["id"]
    assert running.run("cancel", job_id).stdout == f"{job_id} requested; the job was scheduled\n"
    assert running.run("status", job_id, "--watch").returncode == 1
    assert running.run("cancel", job_id).stdout == f"{job_id} cancelled\n"
    assert json.loads(running.run("cancel", job_id, "--json").stdout)["state"] == "cancelled"
    done = json.loads(running.run("submit", "add", '{"x": 1, "y": 2}', "--wait", "--json").stdout)
    too_late = running.run("cancel", done["id"])
    assert too_late.returncode == 1
    assert "has succeeded already" in too_late.stderr


def test_status_watch_prints_progress(running: Installation) -> None:
    gate = running.gate()
    job_id = running.submit("gate", {"path": str(gate)})
    watching = running.start("status", job_id, "--watch")
    watching.line_with("running 50% at the gate")
    with gate.open("w") as pipe:
        pipe.write("open")
    assert watching.code() == 0
    assert "succeeded" in watching.lines


def test_watch_prints_matching_events(running: Installation) -> None:
    before = json.loads(running.run("submit", "add", '{"x": 1, "y": 1}', "--wait", "--json").stdout)
    json_lines = running.start("watch", "succeeded.add", "--since", str(before["cursor"]), "--json")
    plain_lines = running.start("watch", "failed", "--since", str(before["cursor"]), "--label", "who=me")
    added = running.submit("add", {"x": 1, "y": 2})
    delivered = json.loads(json_lines.line_with(added))
    assert (delivered["type"], delivered["data"]["result"]) == ("jobtape.job.succeeded", 3)
    running.submit("boom", {"text": "without the label"})
    labelled = running.submit("boom", {"text": "no\x1b[31m\nway"}, "--label", "who=me")
    line = plain_lines.line_with(labelled)
    assert line.split()[2:] == ["boom", "failed", labelled, "ValueError:", r"no\x1b[31m\nway"]
    for program in (json_lines, plain_lines):
        program.send(signal.SIGINT)
        assert (program.code(), len(program.lines)) == (130, 1)


def test_watch_ends_when_output_is_closed(running: Installation) -> None:
    running.run("submit", "add", '{"x": 1, "y": 1}', "--wait")
    reading = running.shell("jobtape watch --since first | head -n 1")
    assert (reading.returncode, reading.stderr, reading.stdout.count("\n")) == (0, "", 1)


def test_as_of_shows_past_states(running: Installation) -> None:
    job_id = json.loads(running.submit("add", {"x": 1, "y": 2}, "--wait", "--json"))["id"]
    events = json.loads(running.run("events", job_id, "--json").stdout)["items"]
    cursor = str(events[0]["cursor"])
    then = running.run("--as-of", cursor, "status", job_id, "--json")
    assert json.loads(then.stdout)["state"] == "queued"
    assert then.stderr == f"as of cursor {cursor}\n"
    assert json.loads(running.run("status", job_id, "--as-of", cursor, "--json").stdout) == json.loads(then.stdout)
    listed = json.loads(running.run("--as-of", cursor, "list", "--limit", "1", "--json").stdout)
    assert [(job["id"], job["state"]) for job in listed["items"]] == [(job_id, "queued")]
    # A time without a zone is local, as in the lists.
    submitted = datetime.fromisoformat(events[0]["time"]).astimezone()
    then = running.run("--as-of", submitted.strftime("%Y-%m-%d %H:%M:%S.%f"), "list", "--limit", "1")
    assert job_id in then.stdout
    assert "queued" in then.stdout
    midnight = running.shell('jobtape --as-of "$(date +%F)" list')
    assert midnight.returncode == 0, "the README shows this command"
    early = running.run("--as-of", "1999-12-31", "status", job_id)
    assert early.returncode == 1
    assert "there was no job" in early.stderr


def test_list_filters_match_any_of_their_values(running: Installation) -> None:
    label = f"list={uuid4().hex}"
    added = running.submit("add", {"x": 1, "y": 2}, "--label", label, "--wait", "--json")
    done = json.loads(added)
    running.run("submit", "boom", '{"text": "no"}', "--label", label, "--wait")

    def listed(*options: str) -> list[str]:
        found = running.run("list", "--label", label, "--json", *options)
        assert found.returncode == 0, found.stderr
        return [job["type"] for job in json.loads(found.stdout)["items"]]

    assert listed("--state", "succeeded", "--state", "failed") == ["boom", "add"]
    assert listed("--state", "failed", "--state", "queued") == ["boom"]
    assert listed("--type", "add", "--type", "boom", "--queue", "default", "--queue", "gates") == ["boom", "add"]
    assert listed("--reason", "error", "--reason", "timeout") == ["boom"]
    assert listed("--until", done["submitted_at"]) == []
    assert listed("--since", done["finished_at"]) == ["boom"]
    today = datetime.fromisoformat(done["submitted_at"]).astimezone().strftime("%Y-%m-%d")
    assert listed("--since", today) == ["boom", "add"], "--since takes the same times as --as-of"
    assert listed("--until", today) == []
    assert listed("--state", "queued", "--state", "succeeded", "--as-of", str(done["cursor"])) == ["add"]


def test_wait_without_worker_prints_hint_and_ctrl_c_keeps_the_job(broker_installation: Installation) -> None:
    broker_installation.up(JOBTAPE_QUEUES="default")
    waiting = broker_installation.start("submit", "gate", '{"path": "/none"}', "--wait")
    url = broker_installation.env["JOBTAPE_URL"]
    waiting.line_with(f"still queued: is a worker running and free? See {url}/health/ready")
    waiting.send(signal.SIGINT)
    assert waiting.code() == 130
    job_id = waiting.lines[0].removeprefix("job ")
    assert waiting.lines[1:] == [
        "queued",
        f"still queued: is a worker running and free? See {url}/health/ready",
        f"jobtape: the job continues; follow it with: jobtape status {job_id} --watch",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("submit", "nope", "{}"), "known: add, boom, gate, pid"),
        (("submit", "add", '{"x": "one"}'), "/payload/y: Field required"),
        (("submit", "add", '{"x": NaN, "y": 1}'), "NaN"),
        (("submit", "add", '{"x": "\\ud800", "y": 1}'), "surrogate"),
        (("submit", "add", "{}", "--idempotency-key", "a b"), "without spaces"),
        (("submit", "add", "{}", "--idempotency-key", "ключ"), "without spaces"),
        (("status", "nonsense"), "a job id is a UUID"),
        (("status", "01890000-0000-7000-8000-000000000000"), "01890000-0000-7000-8000-000000000000"),
        (("list", "--state", "odd"), "jobtape: state: Input should be"),
    ],
)
def test_refusal_of_the_api_is_one_line(running: Installation, arguments: tuple[str, ...], message: str) -> None:
    done = running.run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("jobtape: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_missing_key_names_its_variable(running: Installation) -> None:
    done = running.run("list", JOBTAPE_API_KEY="")
    assert done.returncode == 1
    assert "put the key of this API into JOBTAPE_API_KEY" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("submit", "add", "{x"), "is not JSON"),
        (("submit", "add", "[1,2]"), "not a JSON object"),
        (("submit", "add", "@missing.json"), "cannot read the payload"),
        (("submit", "add", "{}", "--label", "customer"), "write it as name=value"),
        (("submit", "add"), "Missing argument"),
        (("watch", "done"), "is not an event: submitted, started"),
        (("watch", "*.mail*"), "is neither a job type"),
        (("watch", "--since", "soon"), "a cursor is a number"),
        (("list", "--limit", "many"), "--limit"),
        (("--as-of", "yesterday", "list"), "write a time such as"),
        (("--as-of", "7", "submit", "add", "{}"), "--as-of works only with list and status"),
        (("--as-of", "7", "status", "x", "--watch"), "leave out --as-of"),
    ],
)
def test_wrong_use_exits_2(installation: Installation, arguments: tuple[str, ...], message: str) -> None:
    done = installation.run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_unreachable_api_is_one_line_with_remedy(installation: Installation) -> None:
    for arguments in (
        ("submit", "add", "{}"),
        ("status", str(uuid4())),
        ("list",),
        ("events", str(uuid4())),
        ("watch",),
    ):
        done = installation.run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert "start one with `jobtape up`, or set its address with --url / JOBTAPE_URL" in done.stderr


def test_api_key_is_created_rotated_and_revoked(running: Installation) -> None:
    created = running.run("keys", "create", "shop", "--scope", "read", "--type", "add", "--expires", "90d")
    key_id, key = created.stdout.split()

    def status(text: str) -> int:
        url = f"{running.env['JOBTAPE_URL']}/job-types"
        return httpx.get(url, headers={"Authorization": f"Bearer {text}"}, trust_env=False).status_code

    assert status(key) == 200
    new = running.run("keys", "rotate", key_id, "--overlap", "0s").stdout.strip()
    assert (status(key), status(new)) == (401, 200)
    assert running.run("keys", "revoke", key_id).returncode == 0
    assert status(new) == 401
    (line,) = [each for each in running.run("keys", "list").stdout.splitlines() if key_id in each]
    assert "shop  revoked  read  add  expires" in line
    unsaid = running.run("keys", "create", "shop")
    assert (unsaid.returncode, "--scope read" in unsaid.stderr) == (2, True)
