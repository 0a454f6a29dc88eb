"""``jobtape doctor``: checks broker, view, outbox and settings directly, so that it works without the API."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.text import Text

from jobtape.broker.link import Link, connected
from jobtape.broker.publisher import Publisher
from jobtape.cli import log_output as logs
from jobtape.cli import printing as show
from jobtape.cli.doctor.broker import examine_broker
from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.outbox import examine_outbox
from jobtape.cli.doctor.policies import examine_policies
from jobtape.cli.doctor.relay import examine_relay
from jobtape.cli.doctor.view import examine_view
from jobtape.cli.doctor.webhooks import examine_webhooks
from jobtape.cli.escaping import one_line
from jobtape.cli.parts.start import job_types_of, opened_view, settings_with, topology_of
from jobtape.jobs import JobType
from jobtape.producer.service.barrier import Barrier
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError
from jobtape.schemas.timeouts import HOW_TO_FIX, longest_timeout, too_long
from jobtape.settings import Settings
from jobtape.view.store import Store

OK, WRONG = 0, 1
MARKS: Final = {"fine": ("ok   ", "green"), "note": ("note ", "yellow"), "wrong": ("WRONG", "bold red")}
LIMIT: Final = 60.0
"""Seconds that all questions to the broker may take."""
PASSING: Final = 5.0
"""Seconds that a barrier may take to the tape and into the view."""


def run_doctor(*, as_json: bool, **options: str | None) -> int:
    """Print the findings. Returns the exit code, 1 when something is wrong. Raises CannotStart and BrokenModule."""
    settings = settings_with(**options)
    logs.configure("doctor", "error")
    job_types = job_types_of(settings) if settings.jobs else {}
    with opened_view(settings) as store:
        findings = asyncio.run(_examine(settings, job_types, store))
    if as_json:
        show.print_json({"healthy": findings.healthy, "findings": [asdict(item) for item in findings.items]})
    else:
        _print(findings)
    return OK if findings.healthy else WRONG


async def _examine(settings: Settings, job_types: Mapping[str, JobType], store: Store) -> Findings:
    found = Findings()
    _examine_settings(found, settings, job_types)
    await asyncio.to_thread(examine_outbox, found, settings)
    work = await asyncio.to_thread(examine_view, found, store)
    await asyncio.to_thread(examine_webhooks, found, store)
    topology = topology_of(settings, job_types)
    topology = topology.with_queues({*topology.queues, *work.queues})
    try:
        async with connected(settings.rabbitmq_url, LIMIT) as connection:
            await examine_broker(found, connection, topology, work)
    except BrokerUnavailable as error:
        found.wrong("broker", str(error))
        return found
    await asyncio.to_thread(examine_policies, found, settings, topology)
    await asyncio.to_thread(examine_relay, found, settings, topology, store)
    link = Link(settings.rabbitmq_url, name=f"{topology.namespace} doctor")
    link.start()
    try:
        await _examine_lag(found, Publisher(link, topology), store)
    finally:
        await link.close()
    return found


def _examine_settings(found: Findings, settings: Settings, job_types: Mapping[str, JobType]) -> None:
    for sentence in too_long(job_types.values(), longest_timeout(settings.ack_timeout, settings.grace_period)):
        found.wrong("settings", f"{sentence}: workers refuse to start", HOW_TO_FIX)
    if settings.rescue_after <= settings.ack_timeout:
        found.wrong(
            "settings",
            f"JOBTAPE_RESCUE_AFTER ({settings.rescue_after:g} s) is not more than JOBTAPE_ACK_TIMEOUT "
            f"({settings.ack_timeout:g} s): jobs that wait would be taken for lost and run twice",
            f"set JOBTAPE_RESCUE_AFTER above {settings.ack_timeout:g}",
        )
    if not job_types:
        found.note("settings", "no job modules are named, so only queues that have jobs are checked", "give --jobs")
    if not found.items:
        found.fine("settings", f"{len(job_types)} job types, and their timeouts are allowed")
    found.note(
        "settings",
        f"AMQP does not show the broker's consumer_timeout; it must not be less than JOBTAPE_ACK_TIMEOUT "
        f"({settings.ack_timeout:g} s)",
        "`rabbitmqctl environment | grep consumer_timeout` shows it, in milliseconds",
    )


async def _examine_lag(found: Findings, publisher: Publisher, store: Store) -> None:
    """Send a barrier to the tape and wait for it in the view: add whether the broker accepts it, and the view's lag."""
    barrier = Barrier(
        "doctor", publisher.publish_barrier, lambda process: asyncio.to_thread(store.passed_barrier, process)
    )
    began = time.monotonic()
    try:
        await barrier.publish(PASSING)
    except JobtapeError as error:
        found.wrong(
            "broker",
            f"the tape does not accept a message: {error}",
            "if the tape exists, the broker has a memory or disk alarm: see `rabbitmqctl status`, and free some",
        )
        return
    took = time.monotonic() - began
    found.fine("broker", f"the tape accepts a message within {took * 1000:.0f} ms, so no alarm blocks publishers")
    try:
        passed = await barrier.wait(PASSING - took)
    except JobtapeError:
        return  # the check of the view reports why
    if passed:
        found.fine("view", f"it is {(time.monotonic() - began) * 1000:.0f} ms behind the tape")
        return
    found.wrong(
        "view",
        f"it is more than {PASSING:g} s behind the tape",
        "start `jobtape projector` where none runs; otherwise see its log, and whether the database keeps up",
    )


def _print(found: Findings) -> None:
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for item in found.items:
        mark, style = MARKS[item.level]
        console.print(Text.assemble((mark, style), f" {item.part}: {one_line(item.what)}"))
        if item.todo:
            console.print(f"      -> {one_line(item.todo)}")
    wrong = sum(item.level == "wrong" for item in found.items)
    console.print("no problem" if wrong == 0 else f"{wrong} problem{'s' if wrong > 1 else ''}")
