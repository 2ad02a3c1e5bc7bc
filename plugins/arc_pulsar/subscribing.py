"""Subscribing: opens the consumer that a subscription asks for."""

from __future__ import annotations

import uuid
from typing import Final, cast

from arc_bus.policy import Subscription
from arc_bus.routing import has_wildcard, token
from arc_bus.transport import StartAt
from arc_pulsar import failure, topics, vendor
from arc_pulsar.client import PulsarClient
from arc_pulsar.intake import BATCH_WAIT_MS
from arc_pulsar.options import SubscriptionType, subscription_options

_LIBRARY_NAMES: Final = {
    SubscriptionType.SHARED: "Shared",
    SubscriptionType.KEY_SHARED: "KeyShared",
    SubscriptionType.FAILOVER: "Failover",
    SubscriptionType.EXCLUSIVE: "Exclusive",
}
_QUEUE: Final = 1000
_PARTITION_QUEUE: Final = 32
"""What each partition's queue holds at least, where the subscription's bound is that large."""
_BATCH_BYTES: Final = 10 * 1024 * 1024


async def open_consumer(
    client: PulsarClient, subscription: Subscription, name: str
) -> vendor.Consumer:
    """Return a consumer of subscription `name`, active. Raises ConfigError, ConnectionLost.

    The start position counts where the subscription did not exist before. A wildcard with start
    NEW is opened twice: first at the end of the topics that exist, then for good with EARLIEST, so
    that of a topic found later, when messages are on it already, none is missed.
    """
    wild = has_wildcard(subscription.pattern)
    target: str | vendor.TopicRegex = subscription.pattern
    partitions = 1
    if wild:
        target = vendor.load().TopicRegex(topics.expression_of(subscription.pattern))
    else:
        partitions = len(await client.partitions(subscription.pattern))
    settings = _settings(client, subscription, partitions)
    if wild and subscription.start is StartAt.NEW:
        await client.end(await client.open_consumer(target, name, settings))
        earliest = vendor.enum("InitialPosition", "Earliest")
        vendor.configure(settings, subscription_initial_position=earliest)
    return await client.open_consumer(target, name, settings)


async def is_held(client: PulsarClient, consumer: vendor.Consumer) -> bool:
    """Return whether the broker has `consumer`; of several topics' only that it is connected.

    `is_connected()` is true as soon as the broker has been asked for it, too.
    """
    result, *_ = await client.bridge.ask(consumer.get_last_message_id_async)
    code = cast("vendor.Result", result).name
    unknown = code == "BrokerMetadataError" or failure.is_away(code)
    return consumer.is_connected() and not unknown


def temporary_name(service: str) -> str:
    """Return a subscription name of this process alone, which still tells whose it was."""
    return f"arc-{token(service)[:40]}-{uuid.uuid4().hex}"


def _settings(client: PulsarClient, subscription: Subscription, partitions: int) -> vendor.Settings:
    given = subscription_options(subscription.options, subscription.pattern)
    keyed = SubscriptionType.KEY_SHARED if subscription.order_by else SubscriptionType.SHARED
    start = "Latest" if subscription.start is StartAt.NEW else "Earliest"
    queue = given.receiver_queue or min(subscription.bound, _QUEUE)
    most_bytes = min(_BATCH_BYTES, subscription.prefetch_bytes)
    library = vendor.load()
    settings = library.ConsumerConfiguration()
    vendor.configure(
        settings,
        consumer_type=vendor.enum("ConsumerType", _LIBRARY_NAMES[given.type or keyed]),
        receiver_queue_size=queue,
        # Shared out among the partitions by the library; each share should be worth a round trip.
        max_total_receiver_queue_size_across_partitions=max(
            queue, partitions * min(queue, _PARTITION_QUEUE)
        ),
        # Half of the queue: the library asks for more when half is gone, so it is seldom full.
        batch_receive_policy=library.BatchReceivePolicy(
            max(1, queue // 2), most_bytes, BATCH_WAIT_MS
        ),
        # Takes effect where the broker has acknowledgmentAtBatchIndexLevelEnabled.
        batch_index_ack_enabled=True,
        subscription_initial_position=vendor.enum("InitialPosition", start),
        pattern_auto_discovery_period=client.options.discovery_period,
    )
    return settings
