"""Jobs in the dashboard: submit, follow, list, redrive and cancel them, and look at their past."""

import json
import random
import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.cli.installation import Installation
from tests.cli.programs import until
from tests.dashboard.browser import Tab

MARKUP = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
RIGHT_TO_LEFT = "قيمة \u202eevil"
LARGEST = 2**63 - 1


def submit(site: Installation, job_type: str, payload: dict[str, Any], **options: Any) -> str:
    """Submit a job over the API, and return its id."""
    body = {"type": job_type, "payload": payload, **options}
    answer = httpx.post(f"http://127.0.0.1:{site.port}/jobs", json=body, trust_env=False)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def job(site: Installation, job_id: str) -> dict[str, Any]:
    """Return the job as the API shows it."""
    found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{site.port}/jobs/{job_id}", trust_env=False).json()
    return found


def ended(site: Installation, job_id: str) -> dict[str, Any]:
    """Wait until the job has ended, and return it."""
    until(lambda: job(site, job_id)["state"] in ("succeeded", "failed", "cancelled"), "the job ends")
    return job(site, job_id)


def test_submit_by_form_shows_faults_at_fields_then_result(site: Installation, tab: Tab) -> None:
    page = tab.go("submit")
    page.get_by_label("Job type").select_option("add")
    page.get_by_label("x required").fill("many")
    page.get_by_label("y required").fill(str(LARGEST))
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_label("x required")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("y required")).to_have_attribute("aria-invalid", "false")
    page.get_by_label("x required").fill("-7")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("heading", name="succeeded add")).to_be_visible()
    expect(page.get_by_label("Result").locator("pre")).to_have_text(str(LARGEST - 7))


def test_flow_shows_its_nodes_and_leads_to_their_jobs(site: Installation, tab: Tab) -> None:
    nodes = {
        "one": {"type": "add", "payload": {"x": 1, "y": 2}},
        "two": {"type": "add", "payload": {"x": {"$from": "one"}, "y": 4}},
        "never": {"type": "add", "after": ["two"], "on": "failure", "payload": {"x": 0, "y": 0}},
    }
    flow_id = submit(site, "jobtape.flow", {"nodes": nodes})
    assert ended(site, flow_id)["result"] == {"two": 7}
    page = tab.go(f"jobs/{flow_id}")
    rows = page.get_by_label("Nodes").get_by_role("row")
    expect(rows).to_contain_text(["Node", "succeeded", "one", "skipped"])
    graph = page.get_by_label("Graph of the flow")
    expect(graph.locator(".node")).to_have_text([re.compile(name) for name in nodes])
    expect(graph.locator("g.node.skipped")).to_contain_text("never")
    expect(graph.locator(".edge")).to_have_count(2)
    first = httpx.get(f"http://127.0.0.1:{site.port}/jobs/{flow_id}/events", trust_env=False).json()["items"][0]
    tab.go(f"jobs/{flow_id}?as_of={first['cursor']}")
    expect(graph.locator("g.node.waiting")).to_have_count(3)
    tab.go(f"jobs/{flow_id}")
    graph.locator("a.node", has_text="two").click()
    expect(page.get_by_text("node two")).to_be_visible()
    page.get_by_role("link", name=flow_id).click()
    expect(graph).to_be_visible()
    tab.go(f"jobs?flow={flow_id}&node=one")
    expect(page.get_by_text("add")).not_to_have_count(0)


def test_signal_that_a_flow_waits_for_is_sent_by_form(site: Installation, tab: Tab) -> None:
    nodes = {"sum": {"type": "add", "payload": {"x": {"$from": "approved", "path": "/x"}, "y": 4}}}
    flow_id = submit(site, "jobtape.flow", {"nodes": nodes, "signals": {"approved": {}}})
    page = tab.go(f"jobs/{flow_id}")
    expect(page.get_by_text("It waits for the signal approved.")).to_be_visible()
    page.get_by_role("button", name="Send it …").click()
    payload = page.get_by_role("textbox", name="Payload")
    for wrong in ("{x: 3}", "[3]"):
        payload.fill(wrong)
        page.get_by_role("button", name="Send the signal").click()
        expect(payload).to_have_attribute("aria-invalid", "true")
    assert job(site, flow_id)["signals"] is None
    payload.fill(f'{{"x": {LARGEST - 4}}}')
    page.get_by_role("button", name="Send the signal").click()
    expect(page.get_by_label("Result").locator("pre")).to_have_text(re.compile(f'"sum": {LARGEST}'))
    expect(page.get_by_text("It waits for the signal")).to_have_count(0)
    expect(page.get_by_label("Payload of the signal approved")).to_have_text(re.compile(f'"x": {LARGEST - 4}'))
    expect(page.get_by_label("Events of the job")).to_contain_text("approved")


def test_flow_that_waits_for_long_needs_no_worker(tab: Tab) -> None:
    lost = """async (type) => {
      const app = document.querySelector("script[type=module]").src;
      const { lostItsWorker } = await import(new URL("parts/workers.js", app));
      const job = { id: "1", type, state: "running", started_at: "2026-01-01T00:00:00Z" };
      return lostItsWorker(job, { items: [], collected: true });
    }"""
    page = tab.go("jobs")
    expect(page.get_by_text("all parts ready")).to_be_visible()
    assert [page.evaluate(lost, name) for name in ("add", "jobtape.flow")] == [True, False]


def test_second_delivery_names_the_worker_that_was_lost(tab: Tab) -> None:
    look = """async () => {
      const app = document.querySelector("script[type=module]").src;
      const { lostExecutions, segments } = await import(new URL("parts/timeline.js", app));
      const event = (name, second, data) => ({
        type: `jobtape.job.${name}`, time: new Date(second * 1000).toISOString(), data: { run: 1, attempt: 1, ...data },
      });
      const events = [
        event("submitted", 0, { order: {} }),
        event("started", 1, { execution: "a", worker: "first" }),
        event("progressed", 3, { execution: "a" }),
        event("started", 9, { execution: "b", worker: "second" }),
      ];
      return [
        segments(events, 11_000).map(({ kind, to }) => `${kind} ${to / 1000}`),
        [...lostExecutions(events)].map(([event, lost]) => [event.data.worker, lost.delivery, lost.worker]),
      ];
    }"""
    page = tab.go("jobs")
    expect(page.get_by_text("all parts ready")).to_be_visible()
    bar, lost = page.evaluate(look)
    assert bar == ["queued 1", "running 3", "lost 9", "running 11"]
    assert lost == [["second", 2, "first"]]


def test_each_node_of_a_graph_is_behind_those_before_it_and_no_box_on_another(tab: Tab) -> None:
    """Also of 1,000 nodes, which are laid out in less than a second."""
    chance = random.Random(4)
    graphs = []
    for number in (1, 10, 60, 1000):
        names = [f"n{n}" for n in range(number)]
        before = [chance.sample(names[:n], min(n, chance.choice((0, 1, 1, 2)))) for n in range(number)]
        nodes = [{"name": name, "after": after} for name, after in zip(names, before, strict=True)]
        graphs.append(chance.sample(nodes, number))
    page = tab.go("jobs")
    result = page.evaluate(
        """async (graphs) => {
          const app = document.querySelector('script[type=module]').src;
          const { layers } = await import(new URL("core/layers.js", app));
          const begin = performance.now();
          const found = graphs.map((nodes) => [...layers(nodes)].map(([name, at]) => [name, at.column, at.row]));
          return { found, took: performance.now() - begin };
        }""",
        graphs,
    )
    assert result["took"] < 1000
    for nodes, found in zip(graphs, result["found"], strict=True):
        columns = {name: column for name, column, _ in found}
        assert len({(column, row) for _, column, row in found}) == len(found)
        for node in nodes:
            assert columns[node["name"]] == max((columns[other] + 1 for other in node["after"]), default=0)


def test_progress_and_outcome_appear_without_reload(site: Installation, tab: Tab) -> None:
    gate = site.gate()
    page = tab.go(f"jobs/{submit(site, 'gate', {'path': str(gate)})}")
    expect(page.locator("p.progress")).to_contain_text("50 % · at the gate")
    gate.write_text("opened")
    expect(page.get_by_role("heading", name="succeeded gate")).to_be_visible()
    expect(page.get_by_label("Result").locator("pre")).to_have_text('"opened"')
    expect(page.get_by_label("Events of the job").get_by_role("listitem")).to_have_text(
        [re.compile("submitted"), re.compile("started"), re.compile("progressed"), re.compile("succeeded")]
    )
    gate.unlink()


def test_list_announces_new_jobs_and_moves_no_row(site: Installation, tab: Tab) -> None:
    label = {"test": "announce"}
    first = [submit(site, "add", {"x": n, "y": 0}, labels=label) for n in range(6)]
    page = tab.go("jobs?label=test%3Aannounce")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(6)
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    later = submit(site, "boom", {"text": "later"}, labels=label)
    announced = page.get_by_role("button", name="1 new")
    expect(announced).to_be_visible()
    assert [row.get_attribute("title") for row in page.locator("[data-row]").all()] == first[::-1]
    announced.click()
    expect(rows).to_have_count(7)
    expect(page.locator("[data-row]").first).to_have_attribute("title", later)
    expect(rows.first).to_contain_text("ValueError: later")


def test_filters_are_in_the_address(site: Installation, tab: Tab) -> None:
    submit(site, "boom", {"text": "filtered"}, labels={"test": "filter"})
    submit(site, "add", {"x": 1, "y": 1}, labels={"test": "filter"})
    page = tab.go("jobs")
    expect(page.locator("tbody tr").first).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("label:test:filter")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("button", name="failed").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert page.url.endswith("#/jobs?label=test%3Afilter&state=failed")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="failed boom")).to_be_visible()
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Remove the filter").click()
    page.go_back()
    expect(page.get_by_role("button", name="Remove the filter")).to_be_visible()


def test_failed_job_shows_own_frame_and_runs_again(site: Installation, tab: Tab) -> None:
    job_id = submit(site, "boom", {"text": "no such customer"})
    page = tab.go(f"jobs/{job_id}")
    expect(page.get_by_role("heading", name="failed boom")).to_be_visible()
    error = page.get_by_label("Error")
    expect(error).to_contain_text("ValueError: no such customer")
    expect(error.get_by_text("jobs_here.py")).to_be_visible()
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_label("Events of the job")).to_contain_text("redriven")
    expect(page.get_by_role("heading", name="failed boom")).to_be_visible()
    assert ended(site, job_id)["run"] == 2


def test_cancel_delayed_job(site: Installation, tab: Tab) -> None:
    job_id = submit(site, "add", {"x": 1, "y": 2}, delay=3600)
    page = tab.go(f"jobs/{job_id}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="cancelled add")).to_be_visible()
    assert ended(site, job_id)["state"] == "cancelled"


def test_bulk_actions_count_before_they_run(site: Installation, tab: Tab) -> None:
    ids = [submit(site, "boom", {"text": str(n)}, labels={"test": "bulk"}) for n in range(3)]
    for job_id in ids:
        ended(site, job_id)
    page = tab.go("jobs?label=test%3Abulk")
    page.get_by_role("button", name="Run again …").click()
    expect(page.get_by_text("3 jobs match now")).to_be_visible()
    assert {job(site, job_id)["run"] for job_id in ids} == {1}
    page.get_by_role("button", name="Run again: 3 jobs").click()
    expect(page.get_by_role("heading", name="succeeded Run again (redrive)")).to_be_visible()
    assert {job(site, job_id)["run"] for job_id in ids} == {2}
    late = [submit(site, "add", {"x": n, "y": 0}, labels={"test": "bulk"}, delay=3600) for n in range(2)]
    page = tab.go("jobs?label=test%3Abulk")
    page.get_by_role("button", name="Cancel …").click()
    page.get_by_role("button", name="Cancel: 2 jobs").click()
    expect(page.get_by_role("heading", name="succeeded Cancellation")).to_be_visible()
    assert {job(site, job_id)["state"] for job_id in late} == {"cancelled"}


def test_search_in_payloads_and_errors(site: Installation, tab: Tab) -> None:
    wanted = submit(site, "add", {"x": LARGEST, "y": -5}, labels={"test": "search"})
    submit(site, "add", {"x": LARGEST - 1, "y": 5}, labels={"test": "search"})
    failed = submit(site, "boom", {"text": "Lost in Transit"}, labels={"test": "search"})
    ended(site, failed)
    page = tab.go("jobs?label=test%3Asearch")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.keyboard.press("/")
    page.keyboard.type(f"payload.x:{LARGEST}")
    page.keyboard.press("Enter")
    expect(page.locator("[data-row]")).to_have_count(1)
    expect(page.locator("[data-row]")).to_have_attribute("title", wanted)
    expect(page.get_by_text("jobs searched")).to_be_visible()
    page.get_by_role("button", name="Remove the filter payload.x").click()
    page.keyboard.press("/")
    page.keyboard.type("error:lost in")
    page.keyboard.press("Enter")
    expect(page.locator("[data-row]")).to_have_count(1)
    expect(page.locator("[data-row]")).to_have_attribute("title", failed)


def test_held_job_says_what_it_waits_for(site: Installation, tab: Tab) -> None:
    gate = site.gate()
    ids = [submit(site, "gate", {"path": str(gate)}, ordering_key="customer 7") for _ in range(2)]
    page = tab.go("jobs?state=held")
    expect(page.locator("tbody tr")).to_contain_text("waits for ordering key customer 7")
    expect(page.locator("tbody tr td").nth(7)).to_have_text(re.compile("[0-9] (ms|s|min)"))
    page.get_by_role("link", name="gate").click()
    expect(page.get_by_role("heading", name="held gate")).to_be_visible()
    expect(page.get_by_text(f"gate …{ids[0][-12:]} (running) has the ordering key customer 7")).to_be_visible()
    page.get_by_role("link", name="customer 7", exact=True).click()
    expect(page.get_by_label("Filters")).to_contain_text("ordering key customer 7")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.go_back()
    gate.write_text("opened")
    ended(site, ids[0])
    gate.write_text("opened")
    expect(page.get_by_role("heading", name="succeeded gate")).to_be_visible()
    expect(page.get_by_label("Events of the job")).to_contain_text("on its queue: nothing holds it any more")
    gate.unlink()


def test_texts_of_others_are_never_markup(site: Installation, tab: Tab) -> None:
    labels = {MARKUP[:60]: RIGHT_TO_LEFT}
    job_id = submit(site, "boom", {"text": MARKUP + RIGHT_TO_LEFT}, labels=labels, correlation_id="<b>1</b>")
    ended(site, job_id)
    for address in (f"jobs/{job_id}", "jobs?type=boom"):
        page = tab.go(address)
        expect(page.get_by_text("onerror").first).to_be_visible()
        assert page.locator("main img, main script, main b").count() == 0
        assert "Jobtape" in page.title()
    page = tab.go(f"submit?from={job_id}")
    expect(page.get_by_label("text required")).to_have_value(MARKUP + RIGHT_TO_LEFT)


def test_large_numbers_are_exact_and_copied(site: Installation, tab: Tab) -> None:
    job_id = submit(site, "add", {"x": LARGEST, "y": -1}, labels={"quote": "it's"})
    page = tab.go(f"jobs/{job_id}")
    expect(page.get_by_label("Payload").locator("pre")).to_have_text(f'{{\n  "x": {LARGEST},\n  "y": -1\n}}')
    # Without a clipboard, as on plain HTTP, and without the old command, the text is shown.
    page.evaluate("document.execCommand = () => false")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name="Copy as curl").click()
    command = page.get_by_label("Text to copy").input_value()
    body = json.loads(command.partition(" -d '")[2].removesuffix("'").replace("'\\''", "'"))
    assert body == {
        "type": "add",
        "payload": {"x": LARGEST, "y": -1},
        "queue": "default",
        "labels": {"quote": "it's"},
    }
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Copy as Python").click()
    program = page.get_by_label("Text to copy").input_value()
    compile(program, "copied", "exec")
    assert f'"add", {{"x": {LARGEST}, "y": -1}}' in program
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Submit a copy").click()
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("heading", name="succeeded add")).to_be_visible()
    copy = page.url.rpartition("/")[2]
    assert copy != job_id
    assert job(site, copy)["payload"] == {"x": LARGEST, "y": -1}
    assert job(site, copy)["labels"] == {"quote": "it's"}


def test_payload_of_a_mebibyte_is_shown_in_part(site: Installation, tab: Tab) -> None:
    text = "word " * 200_000
    page = tab.go(f"jobs/{submit(site, 'boom', {'text': text})}")
    payload = page.get_by_label("Payload")
    expect(payload.get_by_role("button", name="Show all 1.0 MB")).to_be_visible()
    assert len(payload.locator("pre").inner_text()) < 30_000


def test_job_and_list_in_the_past(site: Installation, tab: Tab) -> None:
    job_id = submit(site, "boom", {"text": "once"}, labels={"test": "past"})
    ended(site, job_id)
    page = tab.go(f"jobs/{job_id}")
    expect(page.get_by_label("Events of the job").get_by_role("listitem")).to_have_count(2)
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("What this event changed")).to_contain_text("queued → failed")
    expect(page.get_by_role("button", name="Run again")).to_have_count(0)
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("heading", name="queued boom")).to_be_visible()
    expect(page.get_by_text("As of")).to_be_visible()
    page.get_by_role("link", name="Queues", exact=True).click()
    expect(page.get_by_text("Queues and workers: this page shows now")).to_be_visible()
    expect(page.locator(".queues").get_by_role("button", name="Pause").first).to_be_disabled()
    page.get_by_role("link", name="Overview", exact=True).click()
    expect(page.get_by_text("the numbers are up to")).to_be_visible()
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.locator("tbody tr").first).to_contain_text("queued")
    assert "as_of=" in page.url
    page.keyboard.press("End")
    expect(page.locator("tbody tr").first).not_to_contain_text("queued")
    assert "as_of=" not in page.url
    # The first event of this tape is older than any job with the label.
    page.goto(page.url.replace("#/jobs", "#/jobs?label=test%3Apast"))
    expect(page.locator("tbody tr")).to_have_count(1)
    slider = page.get_by_label("Show everything as of")
    expect(slider).to_be_enabled()
    slider.fill("0")
    expect(page.get_by_text("No job matches")).to_be_visible()
    assert "as_of=" in page.url
    page.get_by_role("button", name="Go live").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Go to …").click()
    time = page.get_by_label("Date and time")
    time.fill("2001-01-01T12:00:00")
    expect(page.get_by_role("alert")).to_contain_text("is not kept")
    expect(page.get_by_role("button", name="Go there")).to_be_disabled()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Go to …").click()
    expect(time).not_to_have_value("2001-01-01T12:00:00")
    page.get_by_role("button", name="Go there").click()
    expect(page.get_by_text("As of")).to_be_visible()


@pytest.mark.parametrize("address", ["jobs/00000000-0000-7000-8000-000000000000", "nothing"])
def test_unknown_address_says_so(tab: Tab, address: str) -> None:
    page = tab.go(address)
    expect(page.get_by_text(re.compile("There is no such (job|page)"))).to_be_visible()


@pytest.mark.parametrize("query", ["as_of=yesterday", "as_of=9223372036854775807", "since=soon", "state=asleep"])
def test_wrong_address_shows_what_is_wrong(tab: Tab, query: str) -> None:
    page = tab.go(f"jobs?{query}")
    expect(page.get_by_role("alert")).to_contain_text(re.compile("query is not valid|has not reached this cursor"))
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


def test_queues_and_workers_show_what_waits_and_runs(site: Installation, tab: Tab) -> None:
    page = tab.go("queues")
    row = page.locator(".queues tbody tr", has_text="gates")
    expect(row.locator("[data-name=consumers]")).to_have_text("1")
    expect(row.locator("[data-name=waiting]")).to_have_text("0")
    gate = site.gate()
    job_id = submit(site, "gate", {"path": str(gate)})
    worker = page.get_by_role("row", name="alive").filter(has_text="gates")
    expect(worker).to_contain_text("gate for")
    expect(worker.locator("[data-name=slots]")).to_have_text(re.compile("^1 of [0-9]+$"))
    gate.write_text("opened")
    ended(site, job_id)
    expect(worker).to_contain_text("nothing")
    gate.unlink()
    row.get_by_role("button", name="Pause").click()
    expect(row.get_by_role("link", name="paused")).to_be_visible()
    expect(row).to_contain_text("jobtape resume --queue gates")
    row.get_by_role("button", name="Resume").click()
    expect(row.get_by_role("button", name="Pause")).to_be_visible()
    row.get_by_role("link", name="gates").click()
    expect(page.get_by_label("Filters")).to_contain_text("queue gates")
