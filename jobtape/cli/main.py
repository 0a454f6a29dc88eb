"""The ``jobtape`` command: the table of its subcommands, and what ends them."""

import sys
from typing import Annotated, NoReturn

import typer

from jobtape.cli.commands import broker, bulk, flows, jobs, new, repairs, replays, servers, simulate, top
from jobtape.cli.commands.managed import keys, rules, schedules, webhooks
from jobtape.cli.errors import FAILED, WRONG, BrokenModule, WrongUse
from jobtape.cli.escaping import lines, one_line
from jobtape.cli.options import AsOf
from jobtape.cli.output_streams import UNWRITTEN, flushed, output_failed, prepare_streams
from jobtape.schemas.errors import JobtapeError


def _exit(code: int | None, **_: object) -> None:
    """End with the exit code that a command returned; None for 0."""
    raise typer.Exit(code or 0)


app = typer.Typer(
    name="jobtape",
    result_callback=_exit,
    help="Jobs for FastAPI on a durable tape of events in RabbitMQ.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

SERVE = "Run Jobtape"
app.command(rich_help_panel=SERVE)(new.new)
app.command(rich_help_panel=SERVE)(servers.up)
app.command(rich_help_panel=SERVE)(servers.api)
app.command(rich_help_panel=SERVE)(servers.worker)
app.command(rich_help_panel=SERVE)(servers.projector)
app.command(rich_help_panel=SERVE)(servers.outbox)
app.command(rich_help_panel=SERVE)(servers.init)
app.command(rich_help_panel=SERVE)(servers.destroy)

USE = "Submit and follow jobs"
app.command(rich_help_panel=USE)(jobs.submit)
app.command(rich_help_panel=USE)(jobs.status)
app.command(rich_help_panel=USE)(bulk.cancel)
app.command(rich_help_panel=USE)(jobs.signal)
app.command(rich_help_panel=USE)(jobs.release)
app.command(rich_help_panel=USE)(rules.pause)
app.command(rich_help_panel=USE)(rules.resume)
app.command(rich_help_panel=USE)(rules.limit)
app.command(rich_help_panel=USE)(rules.limits)
scheduled = typer.Typer(help="Submit jobs at fixed times.", no_args_is_help=True)
scheduled.command("list")(schedules.list_)
scheduled.command()(schedules.put)
scheduled.command()(schedules.delete)
scheduled.command()(schedules.pause)
scheduled.command()(schedules.resume)
scheduled.command()(schedules.trigger)
scheduled.command()(schedules.ticks)
scheduled.command()(schedules.backfill)
scheduled.command()(schedules.sync)
app.add_typer(scheduled, name="schedules", rich_help_panel=USE)
flow = typer.Typer(help="Submit and fork flows, and list their nodes.", no_args_is_help=True)
flow.command()(flows.submit)
flow.command()(flows.nodes)
flow.command()(flows.fork)
app.add_typer(flow, name="flows", rich_help_panel=USE)
hooks = typer.Typer(help="Post events to endpoints over HTTP.", no_args_is_help=True)
hooks.command("list")(webhooks.list_)
hooks.command()(webhooks.create)
hooks.command()(webhooks.delete)
hooks.command()(webhooks.enable)
hooks.command()(webhooks.disable)
hooks.command()(webhooks.rotate)
hooks.command()(webhooks.reencrypt)
hooks.command()(webhooks.test)
hooks.command()(webhooks.replay)
app.add_typer(hooks, name="webhooks", rich_help_panel=USE)
api_keys = typer.Typer(help="Create, list, rotate and revoke API keys.", no_args_is_help=True)
api_keys.command("list")(keys.list_)
api_keys.command()(keys.create)
api_keys.command()(keys.rotate)
api_keys.command()(keys.revoke)
app.add_typer(api_keys, name="keys", rich_help_panel=SERVE)
on_broker = typer.Typer(help="Limit what each part may do on RabbitMQ.", no_args_is_help=True)
on_broker.command()(broker.users)
app.add_typer(on_broker, name="broker", rich_help_panel=SERVE)
app.command("list", rich_help_panel=USE)(jobs.list_)
app.command(rich_help_panel=USE)(jobs.events)
app.command(rich_help_panel=USE)(jobs.watch)

REPAIR = "Find and repair faults"
app.command(rich_help_panel=REPAIR)(repairs.doctor)
app.command(rich_help_panel=REPAIR)(bulk.redrive)
app.command(rich_help_panel=REPAIR)(repairs.failures)
app.command(rich_help_panel=REPAIR)(repairs.stats)
app.command(rich_help_panel=REPAIR)(repairs.workers)
app.command(rich_help_panel=REPAIR)(top.top)
dead = typer.Typer(help="Show messages that arrived on a work queue but are not jobs.", no_args_is_help=True)
dead.command("list")(repairs.dead_list)
dead.command("show")(repairs.dead_show)
app.add_typer(dead, name="dead", rich_help_panel=REPAIR)
subscriptions = typer.Typer(help="List and remove durable subscriptions.", no_args_is_help=True)
subscriptions.command("list")(repairs.subscriptions_list)
subscriptions.command("remove")(repairs.subscriptions_remove)
app.add_typer(subscriptions, name="subscriptions", rich_help_panel=REPAIR)

REPLAY = "Replay the history"
app.command(rich_help_panel=REPLAY)(replays.rebuild)
app.command(rich_help_panel=REPLAY)(replays.replay)
app.command(rich_help_panel=REPLAY)(replays.shadow)
app.command(rich_help_panel=REPLAY)(simulate.simulate)
app.command(rich_help_panel=REPLAY)(replays.export)
app.command("import", rich_help_panel=REPLAY)(replays.import_)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"jobtape {version('jobtape')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    as_of: AsOf = None,
) -> None:
    del version
    if as_of is not None:
        if context.invoked_subcommand not in ("list", "status"):
            raise WrongUse("--as-of works only with list and status: leave it out")
        context.default_map = {context.invoked_subcommand: {"as_of": as_of}}


def main() -> None:
    """Run the command line and end the process.

    Exit codes: 0 done; 1 a job failed, or something did not work; 2 the call or the configuration is wrong; 128 and
    above ended by a signal. Errors of Jobtape are one line on stderr; a job module that cannot be imported shows its
    own traceback.
    """
    prepare_streams()
    try:
        app(prog_name="jobtape")
    except SystemExit as end:
        raise SystemExit(flushed(end.code)) from None
    except OSError as error:
        if error.errno not in UNWRITTEN:
            raise
        sys.exit(output_failed(error))
    except BrokenModule as broken:
        _fail(lines(str(broken)), WRONG)
    except WrongUse as error:
        _fail(f"jobtape: {one_line(str(error))}", WRONG)
    except JobtapeError as error:
        _fail(f"jobtape: {one_line(str(error))}", FAILED)


def _fail(text: str, code: int) -> NoReturn:
    code = flushed(code)
    print(text, file=sys.stderr)
    sys.exit(code)
