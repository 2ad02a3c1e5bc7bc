"""Permissions: the `pulsar-admin` commands that let one role do what a service does, no more."""

from __future__ import annotations

from arc_bus.permissions import Needs
from arc_bus.routing import has_wildcard


def commands(needs: Needs) -> str:
    """Return a command a line; the role bears the service's name.

    Topics are granted one by one, those of a pattern by their namespace, which is all that Pulsar
    can say of them. A dead-letter topic is read, too: the subscription `arc-dlq` keeps what is in
    it. A subscription's name is granted to the role alone only where you run the last lines; leave
    them out for a group that several services share.
    """
    role = needs.service
    actions: dict[str, set[str]] = {}
    groups: dict[tuple[str, str], None] = {}
    for one in needs.publishes:
        actions.setdefault(_place(one), set()).add("produce")
    for one in needs.dead_letters:
        actions.setdefault(_place(one), set()).update(("produce", "consume"))
    for subscription in needs.subscriptions:
        actions.setdefault(_place(subscription.pattern), set()).add("consume")
        if subscription.group is not None:
            groups[_namespace(subscription.pattern), subscription.group] = None
    lines = [
        f"pulsar-admin {'topics' if '://' in place else 'namespaces'} grant-permission {place}"
        f" --role {role} --actions {','.join(sorted(wanted, reverse=True))}"
        for place, wanted in sorted(actions.items())
    ]
    lines += [
        f"pulsar-admin namespaces grant-subscription-permission {namespace}"
        f" --subscription {group} --roles {role}"
        for namespace, group in groups
    ]
    return "\n".join(lines) + "\n"


def _place(destination: str) -> str:
    """Return what is granted: the topic itself, or the namespace of a pattern."""
    return _namespace(destination) if has_wildcard(destination) else destination


def _namespace(destination: str) -> str:
    return destination.partition("://")[2].rpartition("/")[0]
