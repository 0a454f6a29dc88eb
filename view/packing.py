"""Events as the history stores them: compressed, because most of an event is the same in every event.

The compression is raw deflate (RFC 1951) with a dictionary, a text in which deflate finds what events have in common.
An event of 500 bytes takes about 90, and what the database does not have to write pays for the time. ``unpack`` returns
exactly the text that was packed.

The first byte says how to read the others: 0 as they are (UTF-8), 1 deflate with the first dictionary. So a
dictionary never changes; a better one gets a number of its own.
"""

import zlib
from typing import Final

MOST: Final = 16_384
"""Characters of the longest text that is compressed. In a longer one the envelope hardly counts, and the fold would
wait for the payload's compression."""
_PLAIN: Final = b"\x00"
_DEFLATED: Final = b"\x01"
_WINDOW: Final = -12
"""Raw deflate with a window of 4 KB, which has room for the dictionary and an event: a larger one takes longer to set
up."""
_MEMORY: Final = 5

# What is likely comes last. One sample of each event, with the attributes in the order in which they are written.
_DICTIONARY: Final = (
    b'"imported":"importline":"crash_loop","unknown_type","payload_invalid","result_invalid","result_too_large","lost",'
    b'"timeout","crashed","traceparent":"00-0","tracestate":"dropped":"expired","maxlen","lost_execution":"'
    b',"deferred_since":"until":"since":"'
    b',"type":"jobtape.job.cancelled","data":{"job_type":"","run":1,"attempt":1}}'
    b',"type":"jobtape.job.redriven","data":{"job_type":"","run":2,"attempt":1}}'
    b',"type":"jobtape.job.deferred","data":{"job_type":"'
    b',"type":"jobtape.job.placed","data":{"job_type":"","run":1,"attempt":1,"n":2,"why":"redriven","due","given_up",'
    b',"type":"jobtape.job.failed","data":{"job_type":"","run":1,"attempt":1,"error":{"type":"ValueError","message":"'
    b'","traceback":"Traceback (most recent call last):\\n  File \\"/usr/lib/python3/site-packages/app.py\\", line 1'
    b', in \\n    raise \\n"},"reason":"error","execution":"","worker":"","started_at":"2026-","duration":0.0}}'
    b',"type":"jobtape.job.retrying","data":{"job_type":"","run":1,"attempt":1,"execution":"","error":{"type":"'
    b'","reason":"error","next_at":"2026-","order":{"type":"","payload":{'
    b',"type":"jobtape.job.progressed","data":{"job_type":"","run":1,"attempt":1,"execution":"","n":1,"fraction":0.5,'
    b'"message":""}}'
    b',"type":"jobtape.job.started","data":{"job_type":"","run":1,"attempt":1,"execution":"","worker":"-worker-1"}}'
    b'"datacontenttype":"application/json","schemaversion":2,"correlationid":"","causationid":"/1/submitted",'
    b'"traceparent":"00-","type":"jobtape.job.succeeded","data":{"job_type":"","run":1,"attempt":1,"execution":"",'
    b'"worker":"","result":null,"started_at":"2026-01-01T00:00:00.000000Z","duration":0.00}}'
    b'{"specversion":"1.0","id":"/1/1/succeeded/","source":"/jobtape/jobtape","subject":"019","time":"2026-0'
    b'Z","datacontenttype":"application/json","schemaversion":2,"type":"jobtape.job.submitted","data":{"job_type":"'
    b'","run":1,"attempt":1,"order":{"type":"","payload":{},"payload_version":1,"queue":"default","labels":{},'
    b'"correlation_id":"","run_at":"2026-","reply_to":"","timeout":60.0,"max_attempts":3}}}'
)

_compressor: Final = zlib.compressobj(
    zlib.Z_BEST_SPEED, zlib.DEFLATED, _WINDOW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY
)


def pack(event: str) -> bytes:
    """Return the bytes of an event's text."""
    if len(event) > MOST:
        return _PLAIN + event.encode()
    deflate = _compressor.copy()
    return _DEFLATED + deflate.compress(event.encode()) + deflate.flush()


def unpack(packed: bytes) -> str:
    """Return the text of ``pack``. Raises ValueError for bytes of another format."""
    kind, data = packed[:1], packed[1:]
    if kind == _DEFLATED:
        return zlib.decompressobj(_WINDOW, _DICTIONARY).decompress(data).decode()
    if kind == _PLAIN:
        return data.decode()
    raise ValueError(f"an event in the unknown format {kind.hex() or 'of no byte'}: was it written by a newer version?")
