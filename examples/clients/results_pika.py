"""Receives outcomes over AMQP with pika. It needs RabbitMQ's address and nothing else of Jobtape.

    pip install pika
    RABBITMQ_URL=amqp://guest:guest@localhost:5672/ python results_pika.py billing '*.invoice.send' 'failed.#'

The queue ``billing`` stays when this program ends, and keeps the messages that arrive meanwhile. It is limited: beyond
100,000 messages the oldest are dropped, and after a week without a consumer the queue is deleted.
"""

import json
import os
import sys
from collections import OrderedDict

import pika

RABBITMQ_URL = os.environ.get("RABBITMQ_URL", "amqp://guest:guest@localhost:5672/")
EXCHANGE = os.environ.get("JOBTAPE_NAMESPACE", "jobtape") + ".results"
BOUNDS = {"x-max-length": 100_000, "x-overflow": "drop-head", "x-expires": 7 * 24 * 3600 * 1000}
REMEMBERED = 10_000


def main(queue: str, *keys: str) -> None:
    """Print outcomes, one on each line, until the program is stopped."""
    connection = pika.BlockingConnection(pika.URLParameters(RABBITMQ_URL))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum", **BOUNDS})
    for key in keys or ("#",):
        channel.queue_bind(queue, EXCHANGE, key)
    channel.basic_qos(prefetch_count=100)
    print(f"listening on {queue}", file=sys.stderr, flush=True)
    seen: OrderedDict[str, None] = OrderedDict()
    for delivery, properties, body in channel.consume(queue):
        # Delivered at least once: the same event has the same id.
        if properties.message_id not in seen:
            seen[properties.message_id] = None
            if len(seen) > REMEMBERED:
                seen.popitem(last=False)
            event = json.loads(body)
            outcome = event["data"].get("result", event["data"].get("error"))
            print(event["id"], properties.type, event["data"]["job_type"], json.dumps(outcome), flush=True)
        channel.basic_ack(delivery.delivery_tag)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: results_pika.py QUEUE [KEY ...]")
    main(*sys.argv[1:])
