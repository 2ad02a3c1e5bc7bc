"""Good inputs for each target, from which mutation begins."""

from __future__ import annotations

from typing import Final

import msgspec

_BRAIN = b'{"timestamp":"2026-01-01T00:00:00Z","trace_id":"0af7651916cd43dd8448eb211c80319c",' + (
    b'"service":"arc","event_type":"brain_request","message_id":"m1","request_id":"r","user_id":"u",'
    b'"session_id":"s","conversation_id":"c","turn_index":1,"user_input":"hi",'
    b'"context":{"previous_turns":[{"user":"a","agent":"b"}]},"constraints":{"max_tokens":150}}'
)

SEEDS: Final[dict[str, tuple[bytes, ...]]] = {
    "parser": (
        b"\x07MSG a.b 1 5\r\nhello\r\nHMSG a 2 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPING\r\nPONG\r\n",
        b"\x00INFO {\"a\":1}\r\n+OK\r\n-ERR 'x'\r\nMSG  a\t1  3 \r\nabc\r\nMSG a 9 0\r\n\r\n",
        b"\xffHMSG a.b 1 _INBOX.x 52 54\r\n"
        b"NATS/1.0 100 Idle\r\nNats-Msg-Id: i\r\narc-key: k\r\n\r\n{}\r\n",
    ),
    "headers": (
        b"Nats-Msg-Id: id\r\narc-key: k\r\n"
        b"content-type: application/json\r\ntraceparent: 00-a-b-01",
        b"arc-dead-text: \\u00e9\r\narc-dead-attempts: 5\r\nx:y\r\nX: \xc3\xa9",
    ),
    "reply_subject": (
        b"$JS.ACK.S.c.1.2.3.1700000000000000000.0",
        b"$JS.ACK.d.acc.S.c.1.2.3.1700000000.0.x",
    ),
    "json": (
        *(_BRAIN, b'{"n":1,"f":1.5,"s":"\\u00e9\\ud83d\\ude00","x":[null,true],"m":{"a":[1]}}'),
        *(b'{"x":' + b"[" * 300 + b"]" * 300 + b"}", b'{"service":{"name":"a"},"n":1,"n":2}'),
        b'{"n":123456789012345678901234567890,"f":1e308,"x":-0.0}',
    ),
    "msgpack": (
        msgspec.msgpack.encode(msgspec.json.decode(_BRAIN)),
        msgspec.msgpack.encode({"n": 1, "f": 1.5, "s": "é", "x": [None, b"b"], "m": {"a": [1]}}),
        b"\x81\xa1x" + b"\x91" * 300 + b"\x01",
        b"\xdf\x00\x00\x00\x01\xa1n\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    ),
    "content_type": (
        *(b'application/json; charset=utf-8\n{"n":1}', b"application/msgpack\n\x81\xa1n\x01"),
        *(b"text/plain\nx", b"1700000000000\n1700000000000"),
    ),
    "routing": (
        *(
            b"agent.brain.request\nagent.*.>",
            b"persistent://arc/events/x\npersistent://arc/events/*",
        ),
        *(b"dead.a.b\ndead.>", "a.é.%C3\n_INBOX.>".encode(), b"$JS.API.>\n*.*.error"),
    ),
    "properties": (
        b"message_id\nm1\nContent-Type\napplication/json\ntraceparent\n00-a-b-01\nkey",
        b"arc-dead-text\nx\nA b\n\xc3\xa9\n\xff",
    ),
    "config": (
        b"nats+jetstream://user:p%40ss@localhost:4222,[::1]:4223/STREAM?ack_wait=2&subjects=a.>,b",
        b"pulsar+ssl://localhost:6651,b?connect_timeout=3&max_pending=7",
        b"memory://x?ack_deadline=1",
        b"agent.=nats://localhost:4222,dead.=memory://",
    ),
}
