"""What a handler may ask for, how it gets it, and what is refused before anything starts."""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import msgspec
import pytest

from arc_bus import Bus, Envelope, Message, Notice, NoticeKind, Retry, scoped
from arc_bus.errors import ArcBusError, BusStopped, ConfigError, HandlerError
from arc_bus.handler import Signature
from arc_bus.message import current_message

if TYPE_CHECKING:
    from decimal import Decimal

Make = Callable[..., Bus]
Until = Callable[..., Awaitable[None]]


class Turn(msgspec.Struct):
    text: str


@dataclasses.dataclass
class Note:
    text: str


class Said(TypedDict):
    text: str


class Listed(msgspec.Struct, array_like=True):
    text: str


async def on_struct(turn: Turn, got: list[object]) -> None:
    got.append(turn)


async def on_dataclass(note: Note, got: list[object]) -> None:
    got.append(note)


async def on_typed_dict(said: Said, got: list[object]) -> None:
    got.append(said)


async def on_dict(said: dict[str, object], got: list[object]) -> None:
    got.append(said)


async def on_plain_dict(said: dict, got: list[object]) -> None:  # type: ignore[type-arg]
    got.append(said)


async def on_typed_values(said: dict[str, str], got: list[object]) -> None:
    got.append(said)


async def on_union(turn: Turn | None, got: list[object]) -> None:
    got.append(turn)


async def on_envelope(event: Envelope[Turn], got: list[object]) -> None:
    got.append(event.payload)
    assert event.service == "service"


async def on_plain_envelope(event: Envelope, got: list[object]) -> None:  # type: ignore[type-arg]
    got.append(event.payload)


async def on_envelope_of_dict(event: Envelope[dict[str, object]], got: list[object]) -> None:
    got.append(event.payload)


async def on_envelope_of_dataclass(event: Envelope[Note], got: list[object]) -> None:
    got.append(event.payload)


def on_struct_in_a_thread(turn: Turn, got: list[object]) -> None:
    assert threading.current_thread() is not threading.main_thread()
    got.append(turn)


class Callable_:
    def __init__(self, got: list[object]) -> None:
        self.got = got

    async def __call__(self, turn: Turn) -> None:
        self.got.append(turn)


class Service:
    def __init__(self, got: list[object]) -> None:
        self.got = got

    async def handle(self, turn: Turn) -> None:
        self.got.append(turn)

    @staticmethod
    async def static(turn: Turn, got: list[object]) -> None:
        got.append(turn)


async def deliver(bus: Bus, handler: Callable[..., Any], until: Until, got: list[object]) -> object:
    bus.subscribe("a.b", handler)
    async with bus:
        await bus.publish("a.b", {"text": "hello"})
        await until(lambda: got)
    return got.pop()


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (on_struct, Turn("hello")),
        (on_dataclass, Note("hello")),
        (on_typed_dict, {"text": "hello"}),
        (on_dict, {"text": "hello"}),
        (on_plain_dict, {"text": "hello"}),
        (on_typed_values, {"text": "hello"}),
        (on_union, Turn("hello")),
        (on_envelope, Turn("hello")),
        (on_plain_envelope, {"text": "hello"}),
        (on_envelope_of_dict, {"text": "hello"}),
        (on_envelope_of_dataclass, Note("hello")),
        (on_struct_in_a_thread, Turn("hello")),
        (Service.static, Turn("hello")),
    ],
)
async def test_the_payload_comes_as_the_type_it_is_annotated_with(
    memory_bus: Make, until: Until, handler: Callable[..., Any], expected: object
) -> None:
    got: list[object] = []
    bound = functools.partial(handler, got=got)
    assert await deliver(memory_bus(), bound, until, got) == expected


async def test_bytes_come_as_they_are(memory_bus: Make, until: Until) -> None:
    got: list[object] = []

    async def on_bytes(body: bytes) -> None:
        got.append(body)

    found = await deliver(memory_bus(), on_bytes, until, got)
    assert isinstance(found, bytes)
    assert b'"text":"hello"' in found


async def test_a_callable_object_and_a_bound_method_are_handlers(
    memory_bus: Make, until: Until
) -> None:
    got: list[object] = []
    assert await deliver(memory_bus(), Callable_(got), until, got) == Turn("hello")
    assert await deliver(memory_bus(), Service(got).handle, until, got) == Turn("hello")


async def test_a_decorated_function_keeps_its_annotations(memory_bus: Make, until: Until) -> None:
    got: list[object] = []

    def logged(function: Callable[[Turn], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> None:
            await function(*args, **kwargs)

        return wrapper

    @logged
    async def handler(turn: Turn) -> None:
        got.append(turn)

    assert await deliver(memory_bus(), handler, until, got) == Turn("hello")


async def test_the_decorator_gives_the_function_back_as_it_is(memory_bus: Make) -> None:
    async def handler(turn: Turn) -> None:
        assert turn.text

    assert memory_bus().subscribe("a.b")(handler) is handler


# -- dependencies


class Store:
    pass


class PostgresStore(Store):
    pass


async def test_dependencies_are_found_by_type_whatever_their_order(
    memory_bus: Make, until: Until
) -> None:
    got: list[object] = []
    bus, store = memory_bus(), PostgresStore()
    bus.provide(PostgresStore, lambda message: store)

    async def handler(turn: Turn, bus: Bus, store: Store, *, message: Message) -> None:
        got.append((turn, bus, store, message.payload, message.attempt))

    assert await deliver(bus, handler, until, got) == (Turn("hello"), bus, store, Turn("hello"), 1)


async def test_what_has_a_default_keeps_it(memory_bus: Make, until: Until) -> None:
    got: list[object] = []

    async def handler(turn: Turn, limit: int = 3, untyped=4) -> None:  # type: ignore[no-untyped-def]
        got.append((turn, limit, untyped))

    assert await deliver(memory_bus(), handler, until, got) == (Turn("hello"), 3, 4)


async def test_a_provider_is_asked_once_for_each_attempt(memory_bus: Make, until: Until) -> None:
    bus, asked, given = memory_bus(), list[str](), list[Store]()

    def provide(message: Message) -> Store:
        asked.append(message.id)
        return Store()

    async def handler(_turn: Turn, store: Store) -> None:
        given.append(store)
        if len(given) < 3:
            raise RuntimeError("again")

    bus.provide(Store, provide)
    bus.subscribe("a.b", handler, retry=Retry(first=0.001))
    async with bus:
        await bus.publish("a.b", Turn("hello"), message_id="m-1")
        await until(lambda: len(given) == 3)
    assert asked == ["m-1"] * 3
    assert len({id(store) for store in given}) == 3


async def test_a_scoped_dependency_is_entered_and_left_with_the_attempt_s_outcome(
    memory_bus: Make, until: Until
) -> None:
    bus, log, attempts = memory_bus(), list[str](), 0

    @asynccontextmanager
    async def session() -> AsyncIterator[Store]:
        log.append("begin")
        try:
            yield Store()
        except RuntimeError as error:
            log.append(f"roll back: {error}")
            raise
        else:
            log.append("commit")

    async def handler(_turn: Turn, store: Store) -> None:
        nonlocal attempts
        attempts += 1
        log.append(type(store).__name__)
        if attempts == 1:
            raise RuntimeError("once")

    bus.provide(Store, lambda _: scoped(session()))
    bus.subscribe("a.b", handler, retry=Retry(first=0.001))
    async with bus:
        await bus.publish("a.b", Turn("hello"))
        await until(lambda: "commit" in log)
    assert log == ["begin", "Store", "roll back: once", "begin", "Store", "commit"]


async def test_a_provider_s_context_manager_is_left_alone_unless_it_is_scoped(
    memory_bus: Make, until: Until
) -> None:
    class Pool:
        entered = False

        async def __aenter__(self) -> None:
            self.entered = True

        async def __aexit__(self, *_: object) -> None:
            raise AssertionError("a shared pool must not be closed by the first handler")

    got: list[object] = []
    bus, pool = memory_bus(), Pool()
    bus.provide(Pool, lambda _: pool)

    async def handler(_turn: Turn, pool: Pool) -> None:
        got.append(pool)

    handler.__annotations__["pool"] = Pool
    handler.__annotations__["_turn"] = Turn
    assert await deliver(bus, handler, until, got) is pool
    assert not pool.entered


async def test_a_failing_provider_is_a_failed_attempt(
    memory_bus: Make, seen: Any, until: Until
) -> None:
    bus = memory_bus()

    def provide(_message: Message) -> Store:
        raise OSError("the database is away")

    async def handler(_turn: Turn, store: Store) -> None:
        raise AssertionError(f"never run, with or without {store}")

    bus.provide(Store, provide)
    bus.subscribe("a.b", handler, retry=Retry(attempts=2, first=0.001))
    async with bus:
        await bus.publish("a.b", Turn("hello"))
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED))
        [entry] = await bus.dead_letters("a.b").list()
    assert (entry.error, entry.attempts) == ("OSError", 2)


async def test_a_dependency_that_nobody_provides_stops_the_start_before_anything_runs(
    memory_bus: Make,
) -> None:
    bus = memory_bus()

    async def handler(turn: Turn, store: Store) -> None:
        raise AssertionError((turn, store))

    bus.subscribe("a.b", handler)
    with pytest.raises(HandlerError, match=r"handler.*nothing provides store: Store.*Message, Bus"):
        await bus.start()
    with pytest.raises(BusStopped):
        await bus.publish("a.b", Turn("hello"))


# -- plain functions


async def test_plain_functions_run_in_bounded_threads_beside_the_loop(until: Until) -> None:
    bus = Bus("service", {"": "memory://"}, threads=3)
    running = most = 0
    lock = threading.Lock()
    go, done = threading.Event(), set[int]()

    @bus.subscribe("a.b", concurrency=10)
    def handler(said: dict[str, int], message: Message) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait(30)
        with lock:
            running -= 1
            done.add(said["number"])
        assert current_message.get() is message

    async with bus:
        for number in range(9):
            await bus.publish("a.b", {"number": number})
        await until(lambda: running == 3)  # and the loop is free meanwhile
        go.set()
        await until(lambda: len(done) == 9)
    assert most == 3


async def test_a_plain_function_that_lets_a_stop_iteration_out_has_failed(
    memory_bus: Make, until: Until
) -> None:
    bus, seen = memory_bus(), list[Notice]()
    bus.observe(seen.append)

    @bus.subscribe("a.b", retry=Retry(attempts=2, first=0))
    def handler(said: dict[str, list[int]]) -> None:
        next(iter(said["numbers"]))

    async with bus:
        await bus.publish("a.b", {"numbers": []})
        await until(lambda: [one for one in seen if one.kind is NoticeKind.DEAD_LETTERED])
        [entry] = await bus.dead_letters("a.b").list()
    assert (entry.error, entry.attempts) == ("RuntimeError", 2)
    assert "StopIteration" in entry.text


context: ContextVar[str] = ContextVar("context", default="")


async def test_a_plain_function_s_context_is_its_own(until: Until, memory_bus: Make) -> None:
    bus, seen = memory_bus(), list[str]()

    @bus.subscribe("a.b", concurrency=1)
    def handler(_said: dict[str, object]) -> None:
        seen.append(context.get())
        context.set("leaked")

    async with bus:
        for _ in range(5):
            await bus.publish("a.b", {})
        await until(lambda: len(seen) == 5)
    assert seen == [""] * 5


async def test_a_plain_function_s_result_is_the_reply_and_its_error_a_failure(
    memory_bus: Make,
) -> None:
    bus = memory_bus()

    @bus.subscribe("a.upper")
    def upper(turn: Turn) -> Turn:
        return Turn(turn.text.upper())

    @bus.subscribe("a.fail")
    def fail(_turn: Turn) -> Turn:
        raise LookupError("gone")

    async with bus:
        assert await bus.request("a.upper", Turn("hello"), Turn) == Turn("HELLO")
        with pytest.raises(ArcBusError, match="LookupError: gone"):
            await bus.request("a.fail", Turn("hello"), Turn)


# -- what is refused


def no_parameter() -> None: ...
def no_annotation(turn) -> None: ...  # type: ignore[no-untyped-def]
def no_second_annotation(turn: Turn, store) -> None: ...  # type: ignore[no-untyped-def]
def variable(*turns: Turn) -> None: ...
def keywords(turn: Turn, **rest: object) -> None: ...
def keyword_only(*, turn: Turn) -> None: ...
def positional_only(turn: Turn, store: Store, /) -> None: ...
def anything(turn: Any) -> None: ...
def an_object(turn: object) -> None: ...
def the_message(message: Message) -> None: ...
def a_number(turn: int) -> None: ...
def some_text(turn: str) -> None: ...
def a_list(turn: list[Turn]) -> None: ...
def an_array(turn: Listed) -> None: ...
def a_number_in_an_envelope(event: Envelope[int]) -> None: ...
def a_mix(turn: Turn | int) -> None: ...
def foreign(turn: Store) -> None: ...
def unknown(turn: Decimal) -> None: ...
async def generator(turn: Turn) -> AsyncIterator[Turn]:
    yield turn


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (no_parameter, "no positional parameter; the first is the payload"),
        (no_annotation, "parameter 'turn' needs a type"),
        (no_second_annotation, "parameter 'store' needs a type"),
        (variable, r"\*args and \*\*kwargs"),
        (keywords, r"\*args and \*\*kwargs"),
        (keyword_only, "no positional parameter"),
        (positional_only, "'store' is filled by name"),
        (anything, "annotate 'turn'"),
        (an_object, "annotate 'turn'"),
        (the_message, "first parameter is the payload; annotate 'message'"),
        (a_number, "'turn'.*int.*not an object"),
        (some_text, "'turn'.*str.*not an object"),
        (a_list, "'turn'.*list.*not an object"),
        (an_array, "'turn'.*Listed.*not an object"),
        (a_number_in_an_envelope, "'event'.*int.*not an object"),
        (a_mix, "'turn'.*not an object"),
        (foreign, "'turn'.*Store.*not an object"),
        (unknown, "annotations cannot be read.*Decimal"),
        (generator, "generator; return the reply"),
    ],
)
def test_an_unusable_signature_is_refused_when_it_is_subscribed(
    function: Callable[..., Any], reason: str
) -> None:
    with pytest.raises(HandlerError, match=reason) as raised:
        Bus("service", {"": "memory://"}).subscribe("a.b", function)
    assert function.__name__ in str(raised.value), "the message names the handler"


def test_a_handler_error_is_a_config_error() -> None:
    with pytest.raises(ConfigError):
        Signature(a_number)


@pytest.mark.parametrize(
    ("handler", "field"),
    [(on_struct, "txt"), (on_dataclass, "txt"), (on_typed_dict, "txt"), (on_envelope, "service")],
)
def test_an_order_by_field_that_the_payload_lacks_is_refused(
    handler: Callable[..., Any], field: str
) -> None:
    """Else every message would run unordered, and nobody would hear of it."""
    bus = Bus("service", {"": "memory://"})
    bound = functools.partial(handler, got=[])
    with pytest.raises(HandlerError, match=rf"order_by='{field}', but .* has only text"):
        bus.subscribe("a.b", bound, order_by=field)
    bus.subscribe("a.b", bound, order_by="text")


def test_bytes_are_ordered_by_a_function_only() -> None:
    async def handler(body: bytes) -> None:
        assert body

    bus = Bus("service", {"": "memory://"})
    with pytest.raises(HandlerError, match="order_by='key'"):
        bus.subscribe("a.b", handler, order_by="key")
    bus.subscribe("a.b", handler, order_by=lambda body: body)


class Speaks(Protocol):
    def speak(self) -> str: ...


async def test_a_protocol_is_asked_for_by_the_name_it_is_provided_under(
    memory_bus: Make, until: Until
) -> None:
    class Parrot:
        def speak(self) -> str:
            return "hello"

    got: list[object] = []
    bus = memory_bus()
    bus.provide(Speaks, lambda _: Parrot())  # type: ignore[type-abstract]

    async def handler(_turn: Turn, voice: Speaks) -> None:
        got.append(voice.speak())

    assert await deliver(bus, handler, until, got) == "hello"


async def test_a_protocol_that_nobody_provides_is_refused_clearly(memory_bus: Make) -> None:
    bus = memory_bus()

    async def handler(_turn: Turn, voice: Speaks) -> None:
        raise AssertionError(voice)

    bus.subscribe("a.b", handler)
    with pytest.raises(HandlerError, match="nothing provides voice: Speaks"):
        await bus.start()
    await asyncio.sleep(0)
