"""Producing: how the library's producers are configured, and what they are given."""

from __future__ import annotations

from typing import Final

from arc_bus.errors import PublishRejected
from arc_bus.transport import Outgoing
from arc_pulsar import vendor
from arc_pulsar.options import Compression, PulsarOptions

_LIBRARY_NAMES: Final = {
    Compression.NONE: "NONE",
    Compression.LZ4: "LZ4",
    Compression.ZLIB: "ZLib",
    Compression.ZSTD: "ZSTD",
    Compression.SNAPPY: "SNAPPY",
}


_TORN: Final = 1000
"""Milliseconds after which the library sends a batch that we have not completed: never, unless this
process is halted in the midst of handing one over."""


def producer_settings(options: PulsarOptions, *, batching: bool, ours: bool) -> vendor.Settings:
    """Return the settings of a producer; its name is left to the broker.

    `ours`: we say where a batch ends (`batch.seal`), not the library by `batching_delay`.
    """
    settings = vendor.load().ProducerConfiguration()
    vendor.configure(
        settings,
        batching_enabled=batching,
        # The sticky key of a batch is its first message's: readers by key need it to be all's.
        batching_type=vendor.enum("BatchingType", "KeyBased"),
        batching_max_publish_delay_ms=(
            _TORN if ours else max(1, round(options.batching_delay * 1000))
        ),
        block_if_queue_full=False,
        compression_type=vendor.enum("CompressionType", _LIBRARY_NAMES[options.compression]),
        # Never reached: `max_pending` is enforced by `TopicProducer`, where waiting does not block.
        max_pending_messages=options.max_pending + 1,
        max_pending_messages_across_partitions=1_000_000_000,
        partitions_routing_mode=vendor.enum("PartitionsRoutingMode", "RoundRobinDistribution"),
        send_timeout_millis=max(1, round(options.send_timeout * 1000)),
    )
    return settings


def message_of(outgoing: Outgoing) -> vendor.Message:
    """Return the library's message; headers are its properties, the id is one beside them.

    Raises PublishRejected.
    """
    builder = vendor.load().MessageBuilder()
    try:
        builder.content(outgoing.body)
        builder.properties({**outgoing.headers, "message_id": outgoing.id})
        if outgoing.key:
            builder.partition_key(outgoing.key)
    except (TypeError, UnicodeError):  # its text would show the headers' values
        raise PublishRejected(
            f"publishing to {outgoing.destination!r}: the message {outgoing.id!r} has a body that"
            " is not bytes, or a header or key that is not Unicode text"
        ) from None
    return builder.build()
