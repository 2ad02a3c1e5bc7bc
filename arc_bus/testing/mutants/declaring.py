"""Mutants that are not what they declare."""

from __future__ import annotations

# ruff: noqa: D102 - an overridden method has the contract of what it overrides.
import msgspec

from arc_bus.testing.mutants.mutant import Mutant
from arc_bus.transport import Capabilities, Guarantee, Nack, StartAt


class _Declares(Mutant):
    """Works as before, and declares something else."""

    @staticmethod
    def declared(real: Capabilities) -> Capabilities:
        raise NotImplementedError

    def begin(self) -> None:
        self.capabilities = self.declared(self.inner.capabilities)

    async def start(self) -> None:
        await super().start()
        self.begin()


class DoesWhatItDoesNotDeclare(_Declares):
    """Declares nothing beyond publishing and delivering, and takes everything without a word."""

    killed_by = ("M1a", "M1c", "M1d", "M1e", "M1f", "M1g", "M1h", "M1i", "M1j", "P8b", "F6")

    @staticmethod
    def declared(real: Capabilities) -> Capabilities:
        return Capabilities(
            delivery=real.delivery,
            publish=real.publish,
            while_disconnected=real.while_disconnected,
            start=frozenset({StartAt.NEW}),
            groups=False,
            ack=real.ack,
            max_payload=real.max_payload,
        )


class DelaysWithoutSayingSo(_Declares):
    """Declares immediate nacks only, and takes a delay."""

    killed_by = ("M1b",)

    @staticmethod
    def declared(real: Capabilities) -> Capabilities:
        return msgspec.structs.replace(real, nack=Nack.IMMEDIATE)


class KeepsWhatItSaysItLoses(_Declares):
    """Declares at most once, and redelivers."""

    killed_by = ("D4c", "A13")

    @staticmethod
    def declared(real: Capabilities) -> Capabilities:
        return msgspec.structs.replace(real, delivery=Guarantee.AT_MOST_ONCE)


class GrowsWithItsInstance(Mutant):
    """Declares more on an instance than on its class."""

    killed_by = ("M3",)

    @staticmethod
    def of_class(real: Capabilities) -> Capabilities:
        return msgspec.structs.replace(real, reject=False)
