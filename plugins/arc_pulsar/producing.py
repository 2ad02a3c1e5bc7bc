"""Producing: how the library's producers are configured."""

from __future__ import annotations

from typing import Final

from arc_pulsar import vendor
from arc_pulsar.options import Compression, PulsarOptions

_LIBRARY_NAMES: Final = {
    Compression.NONE: "NONE",
    Compression.LZ4: "LZ4",
    Compression.ZLIB: "ZLib",
    Compression.ZSTD: "ZSTD",
    Compression.SNAPPY: "SNAPPY",
}


def producer_settings(options: PulsarOptions, *, batching: bool) -> vendor.Settings:
    """Return the settings of a producer; its name is left to the broker."""
    settings = vendor.load().ProducerConfiguration()
    vendor.configure(
        settings,
        batching_enabled=batching,
        # The sticky key of a batch is its first message's: readers by key need it to be all's.
        batching_type=vendor.enum("BatchingType", "KeyBased"),
        batching_max_publish_delay_ms=max(1, round(options.batching_delay * 1000)),
        block_if_queue_full=False,
        compression_type=vendor.enum("CompressionType", _LIBRARY_NAMES[options.compression]),
        # Never reached: `max_pending` is enforced by `TopicProducer`, where waiting does not block.
        max_pending_messages=options.max_pending + 1,
        max_pending_messages_across_partitions=1_000_000_000,
        partitions_routing_mode=vendor.enum("PartitionsRoutingMode", "RoundRobinDistribution"),
        send_timeout_millis=max(1, round(options.send_timeout * 1000)),
    )
    return settings
