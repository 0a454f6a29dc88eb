"""Checks whether the times in the settings fit together."""

from collections.abc import Mapping

from jobtape.cli.doctor.findings import Findings
from jobtape.jobs import JobType
from jobtape.schemas.timeouts import WAY_OUT, longest_timeout, misfits
from jobtape.settings import Settings


def examine_settings(found: Findings, settings: Settings, job_types: Mapping[str, JobType]) -> None:
    """Add findings about the settings."""
    before = len(found.items)
    for sentence in misfits(job_types.values(), longest_timeout(settings.ack_timeout, settings.grace_period)):
        found.wrong("settings", f"{sentence}: no worker starts with it", WAY_OUT)
    for name, value in (
        ("JOBTAPE_ACK_TIMEOUT", settings.ack_timeout),
        ("JOBTAPE_UNKNOWN_TYPE_TIMEOUT", settings.unknown_type_timeout),
    ):
        if settings.rescue_after <= value:
            found.wrong(
                "settings",
                f"JOBTAPE_RESCUE_AFTER ({settings.rescue_after:g} s) is not more than {name} ({value:g} s): jobs "
                "that are only waiting would be taken for lost, and run twice",
                f"set JOBTAPE_RESCUE_AFTER above {value:g}",
            )
    if not job_types:
        found.note("settings", "no job modules are named, so only queues that have jobs are checked", "give --jobs")
    if len(found.items) == before:
        found.fine("settings", f"{len(job_types)} job types, their times fit")
    found.note(
        "settings",
        f"consumer_timeout of the broker cannot be read over AMQP; it must not be less than JOBTAPE_ACK_TIMEOUT "
        f"({settings.ack_timeout:g} s)",
        "`rabbitmqctl environment | grep consumer_timeout` shows it, in milliseconds",
    )
