"""Reading and writing frames in bulk, without a broker."""

import asyncio
from itertools import pairwise
from typing import Any, cast

import pytest
from aiormq.abc import AbstractChannel
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection
from pamqp.frame import FrameTypes, marshal, unmarshal
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from jobtape.broker import frames
from jobtape.broker.frames import Delivered, DeliverySink, FrameReader

pytestmark = pytest.mark.anyio

SINK = 3


class _OpenChannel:
    is_closed = False


def delivery(tag: int, body: bytes, *, consumer: str = "c", key: str = "event.x", part: int = 10) -> list[FrameTypes]:
    """The frames of one delivery, its body in parts of ``part`` bytes."""
    properties = Basic.Properties(headers={"x-stream-offset": tag + 2**40, "CC": ["a"]}, message_id=f"m{tag}")
    parts = [body[start : start + part] for start in range(0, len(body), part)]
    deliver = Basic.Deliver(consumer, tag, False, "exchange", key)
    return [deliver, ContentHeader(properties=properties, body_size=len(body)), *map(ContentBody, parts)]


def wire(*parts: tuple[int, list[FrameTypes]]) -> bytes:
    """Bytes of frames on channels."""
    return b"".join(marshal(frame, number) for number, each in parts for frame in each)


def reader_with_sink() -> tuple[asyncio.StreamReader, FrameReader, list[list[Delivered]]]:
    """A socket's reader, the frame reader on it, and what its sink on channel ``SINK`` gets."""
    source, lists = asyncio.StreamReader(), list[list[Delivered]]()
    reader = FrameReader(source)
    sink = reader.sinks[SINK] = DeliverySink(cast(AbstractChannel, _OpenChannel()))
    sink.consumers[b"c"] = lists.append
    return source, reader, lists


async def next_frame(reader: FrameReader) -> tuple[int, str, bytes]:
    """Read a frame as aiormq does: channel, name and bytes."""
    raw = await reader.readexactly(1) + await reader.readexactly(6)
    raw += await reader.readexactly(int.from_bytes(raw[3:7], "big") + 1)
    _, number, frame = unmarshal(raw)
    return number, type(frame).__name__, raw


STREAM = wire(
    (0, [Connection.Blocked("alarm")]),
    (SINK, delivery(1, b"first")),
    (7, delivery(9, b"of another channel")),
    (SINK, delivery(2, b"")),
    (SINK, delivery(3, bytes(range(256)))),
    (SINK, [Basic.CancelOk("c")]),
    (SINK, delivery(4, b"last")),
    (0, [Heartbeat()]),
)


@pytest.mark.parametrize("step", [1, 2, 7, 11, 64, len(STREAM)])
async def test_frames_arrive_whole_and_in_order_however_the_socket_cuts_them(step: int) -> None:
    source, reader, lists = reader_with_sink()
    passed: list[tuple[int, str, bytes]] = []

    async def read() -> None:
        while len(passed) < 7:
            passed.append(await next_frame(reader))

    reading = asyncio.create_task(read())
    for start in range(0, len(STREAM), step):
        source.feed_data(STREAM[start : start + step])
        await asyncio.sleep(0)
    source.feed_eof()
    await reading
    assert reader.at_eof()
    assert [(number, name) for number, name, _ in passed] == [
        (0, "Blocked"),
        (7, "Deliver"),
        (7, "ContentHeader"),
        (7, "ContentBody"),
        (7, "ContentBody"),
        (SINK, "CancelOk"),
        (0, "Heartbeat"),
    ]
    got = [message for each in lists for message in each]
    assert [(message.tag, message.body) for message in got] == [
        (1, b"first"),
        (2, b""),
        (3, bytes(range(256))),
        (4, b"last"),
    ]
    assert {message.key for message in got} == {"event.x"}
    assert [message.integer(b"x-stream-offset") for message in got] == [n + 2**40 for n in (1, 2, 3, 4)]
    assert [message.properties.message_id for message in got] == ["m1", "m2", "m3", "m4"]
    assert got[0].integer(b"x-delivery-count") is None


async def test_deliveries_that_came_together_are_handed_over_together() -> None:
    source, reader, lists = reader_with_sink()
    source.feed_data(wire(*((SINK, delivery(n, b"x")) for n in range(1, 101)), (0, [Heartbeat()])))
    await next_frame(reader)
    assert [len(each) for each in lists] == [100]


async def test_each_consumer_of_a_channel_gets_its_own() -> None:
    source, reader, lists = reader_with_sink()
    others = list[list[Delivered]]()
    reader.sinks[SINK].consumers[b"d"] = others.append
    turns = [delivery(n, b"x", consumer="c" if n % 3 else "d") for n in range(1, 31)]
    source.feed_data(wire(*((SINK, each) for each in turns), (0, [Heartbeat()])))
    await next_frame(reader)
    mine, theirs = ([message.tag for each in got for message in each] for got in (lists, others))
    assert (mine, theirs) == ([n for n in range(1, 31) if n % 3], [n for n in range(1, 31) if not n % 3])
    assert all(a < b for a, b in pairwise(mine))


async def test_deliveries_alone_keep_the_connection_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiormq ends a connection that brought it nothing, and RabbitMQ sends no heartbeats beside deliveries."""
    monkeypatch.setattr(frames, "ALIVE_INTERVAL", -1.0)
    source, reader, lists = reader_with_sink()
    source.feed_data(wire((SINK, delivery(1, b"x"))))
    assert (await next_frame(reader))[:2] == (0, "Heartbeat")
    assert len(lists) == 1


async def test_closing_a_channel_ends_its_sink() -> None:
    source, reader, lists = reader_with_sink()
    source.feed_data(wire((SINK, [*delivery(1, b"x"), Channel.CloseOk()]), (SINK, delivery(1, b"y"))))
    assert (await next_frame(reader))[:2] == (SINK, "CloseOk")
    assert (await next_frame(reader))[:2] == (SINK, "Deliver"), "of the next channel with this number"
    assert [message.body for message in lists[0]] == [b"x"]


async def test_what_is_not_amqp_is_passed_on() -> None:
    source, reader, _ = reader_with_sink()
    source.feed_data(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    source.feed_eof()
    assert await reader.readexactly(8) == b"HTTP/1.1"


async def test_end_inside_a_frame_is_an_incomplete_read() -> None:
    source, reader, _ = reader_with_sink()
    source.feed_data(STREAM[:-3])
    source.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        while not reader.at_eof():
            await next_frame(reader)


async def test_callback_that_fails_keeps_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    source, reader, _ = reader_with_sink()

    def fail(_: Any) -> None:
        raise LookupError("mistake")

    reader.sinks[SINK].consumers[b"c"] = fail
    source.feed_data(wire((SINK, delivery(1, b"x")), (0, [Heartbeat()])))
    assert (await next_frame(reader))[:2] == (0, "Heartbeat")
    assert "could not be handed over" in caplog.text


def delivered(headers: dict[str, Any], **more: Any) -> Delivered:
    return Delivered(1, "key", ContentHeader(properties=Basic.Properties(headers=headers, **more)).marshal(), b"")


def test_integer_of_a_header_is_not_forged_by_other_properties() -> None:
    forged = "\x0fx-stream-offsetl\x00\x00\x00\x00\x00\x00\x00\x07"
    for message in (
        delivered({"x-stream-offset": 5, "other": forged}),
        delivered({"x-stream-offset": 5}, message_id=forged),
    ):
        assert message.integer(b"x-stream-offset") == 5
    assert delivered({"x-delivery-count": 3}).integer(b"x-delivery-count") == 3
    assert delivered({"x-delivery-count": "many"}).integer(b"x-delivery-count") is None


def test_properties_that_cannot_be_parsed_are_empty(caplog: pytest.LogCaptureFixture) -> None:
    raw = delivered({"name": 1})._raw.replace(b"name", b"na\xff\xfe")
    assert Delivered(1, "key", raw, b"").properties.headers is None
    assert "cannot be parsed" in caplog.text
