"""Receives the outcomes of your own jobs, submitted with ``reply_to``, over AMQP with aio-pika.

    pip install aio-pika
    RABBITMQ_URL=amqp://guest:guest@localhost:5672/ python replies_aio_pika.py caller-7

prints the outcomes of jobs that were submitted with
``{"type": "add", "payload": {"x": 3, "y": 4}, "reply_to": "caller-7"}`` while it
runs: its queue is deleted when its connection ends.
"""

import asyncio
import json
import os
import sys
from collections import OrderedDict

import aio_pika

RABBITMQ_URL = os.environ.get("RABBITMQ_URL", "amqp://guest:guest@localhost:5672/")
EXCHANGE = os.environ.get("JOBTAPE_NAMESPACE", "jobtape") + ".results"
REMEMBERED = 10_000


async def main(name: str) -> None:
    """Print the replies to ``name``, one on each line, until the program is stopped."""
    connection = await aio_pika.connect(RABBITMQ_URL)
    async with connection, connection.channel() as channel:
        await channel.set_qos(prefetch_count=100)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(EXCHANGE, f"reply.{name}")
        print(f"listening for replies to {name}", file=sys.stderr, flush=True)
        seen: OrderedDict[str | None, None] = OrderedDict()
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    # Delivered at least once: the same event has the same id.
                    if message.message_id in seen:
                        continue
                    seen[message.message_id] = None
                    if len(seen) > REMEMBERED:
                        seen.popitem(last=False)
                    event = json.loads(message.body)
                    outcome = event["data"].get("result", event["data"].get("error"))
                    print(event["id"], message.type, event["data"]["job_type"], json.dumps(outcome), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: replies_aio_pika.py NAME")
    asyncio.run(main(sys.argv[1]))
