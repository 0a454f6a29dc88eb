"""``jobtape dead list`` and ``show``: print messages that are not jobs, from the API."""

import base64
import sys

from jobtape.cli import printing as show
from jobtape.cli.escaping import lines, one_line
from jobtape.cli.rest.api import Api
from jobtape.cli.rest.jobs import OK


def dead_list(url: str, limit: int, *, as_json: bool) -> int:
    """Print the newest messages. Returns the exit code; raises JobtapeError."""
    with Api(url) as api:
        page = api.dead(limit)
    if as_json:
        show.print_json(page)
        return OK
    show.print_dead(page)
    if not page["items"]:
        print("none; jobs that failed are in `jobtape list --state failed`", file=sys.stderr)
    return OK


def dead_show(url: str, number: int, *, as_json: bool) -> int:
    """Print one message: the body on stdout, the rest on stderr. Returns the exit code; raises JobtapeError."""
    with Api(url) as api:
        message = api.dead_message(number)
    if as_json:
        show.print_json(message)
        return OK
    print(one_line(f"put aside {message['at']}, {message['size']} bytes: {message['reason']}"), file=sys.stderr)
    if message["text"] is None:
        body = base64.b64decode(message["base64"])
        if sys.stdout.isatty():  # binary data is escaped for a terminal and written unchanged to a file
            print(lines(body.decode("utf-8", "backslashreplace")))
            return OK
        sys.stdout.flush()
        sys.stdout.buffer.write(body)
    else:
        print(lines(message["text"]))
    return OK
