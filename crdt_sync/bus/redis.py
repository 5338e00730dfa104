"""The bus over Redis: a stream per room as its short-term log, and pub/sub that carries the same messages.

Owns names in Redis, which server a room is at home at, and marks. Leaves what happens at one server to `redis_server`.

    {prefix}:{room}:log     a stream; each entry is one field, `m`
    {prefix}:{room}:live    a pub/sub channel; sharded pub/sub in a cluster
    {prefix}:{*}:live       the channel for everyone
    {prefix}:{*}:marks      a sorted set of "node room", by the server's time in seconds
    {prefix}:{@node…}:live  a node's own channel, for pings

The braces are there: they make a cluster keep everything of one room together. Between them is the percent-encoded
name, which never contains a brace, `*` or `@`. Channels know no databases, so with one other than 0 they start with
`{prefix}/{number}`.
"""

import asyncio
import contextlib
import logging
import re
import secrets
from collections import defaultdict
from collections.abc import Iterator
from urllib.parse import quote

from . import EVERYONE, BusUnavailable, Kept, Listener, Mark
from .redis_link import SLOTS, Link, LinkLost, Refusal, Span, find_master, is_moved, pack, read_layout, slot_of
from .redis_notes import Notes, marks_question, read_marks
from .redis_sender import MESSAGE_OVERHEAD_BYTES
from .redis_server import Server
from .redis_state import Counters, Health, Keys, Limits, Shared, keep_head, say_head
from .redis_url import Address, Mode, parse_url

log = logging.getLogger("crdt_sync.bus")

KEYS_MAX = 10_000
PAGE_ENTRIES = 200
DRAIN_S = 1.0
# While something is wrong, the cluster is asked this often who has what.
LOOK_AGAIN_S = 1.0
SENTINEL_TIMEOUT_S = 1.0


class RedisBus:
    """One node's end of a Redis. See `Bus` for what it promises.

    Attributes:
        node: See `Bus.node`.
        counters: What it did so far.
    """

    def __init__(
        self, url: str, *, prefix: str = "crdt-sync", node: str | None = None, limits: Limits | None = None
    ) -> None:
        """Prepare, touch nothing.

        Args:
            url: See `open_bus`.
            prefix: What all keys and channels start with.
            node: This node's id; None makes one up.
            limits: Other than the usual ones.

        Raises:
            InvalidBusUrl: It names no bus.
            ValueError: The prefix has characters that it mustn't have.
        """
        if not re.fullmatch(r"[^\s{}]+", prefix):
            raise ValueError(f"a prefix in Redis has no spaces and no braces, got {prefix!r}")
        self.node = node or secrets.token_hex(8)
        self.counters = Counters()
        self._target = parse_url(url)
        self._limits = limits or Limits()
        self._is_cluster = self._target.mode is Mode.CLUSTER
        self._prefix = prefix
        self._channel_prefix = f"{prefix}/{self._target.db}" if self._target.db else prefix
        self._health = Health(self.describe())
        self._known: dict[str, Keys] = {}
        self._everyone = self._name(EVERYONE, "*")
        self._marks_key = f"{prefix}:{{*}}:marks".encode()
        self._notes = Notes(self.node, self._marks_key)
        self._listeners: dict[str, Listener] = {}
        self._servers: dict[Address, Server] = {}
        self._homes: dict[str, Server | None] = {}
        """Where rooms that are followed are at home."""
        self._slots: list[Server | None] = [None] * SLOTS
        self._laid_out = asyncio.Event()
        self._look_again = asyncio.Event()
        self._early: list[tuple[Keys, bytes, bool]] = []
        """Messages from the time before a cluster was found."""
        self._early_bytes = 0
        self._task: asyncio.Task[None] | None = None
        if not self._is_cluster:
            address = self._target.addresses[0]
            whole = Span(0, SLOTS - 1, address)
            self._assign({address: [whole]})

    def describe(self) -> str:
        """Where it is, without secrets."""
        return self._target.describe()

    @property
    def problem(self) -> str | None:
        """See `Bus.problem`."""
        return self._health.problem

    async def open(self) -> None:
        """See `Bus.open`."""
        for server in self._servers.values():
            server.open()
        if self._is_cluster:
            self._health.expect(self)
            self._task = asyncio.create_task(self._keep_laid_out())

    async def close(self) -> None:
        """See `Bus.close`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await asyncio.gather(*(server.close(drain_s=DRAIN_S) for server in self._servers.values()))
        self._health.forget(self)

    def publish(self, room: str, message: bytes, *, keep: bool) -> None:
        """See `Bus.publish`."""
        keys = self._keys(room)
        server = self._slots[keys.slot]
        if server is not None:
            server.sender.put(keys, message, keep=keep)
        elif not self._laid_out.is_set() and self._early_bytes + len(message) <= self._limits.queue_bytes_max:
            self._early.append((keys, message, keep))
            self._early_bytes += len(message) + MESSAGE_OVERHEAD_BYTES
        else:
            # Once it is known who has the room, its listener is told to resync.
            self.counters.dropped += 1

    def follow(self, room: str, listener: Listener) -> None:
        """See `Bus.follow`."""
        keys = self._keys(room)
        server = self._slots[keys.slot]
        self._listeners[room] = listener
        self._homes[room] = server
        if server is not None:
            server.subscriber.follow(keys, listener)

    def unfollow(self, room: str) -> None:
        """See `Bus.unfollow`."""
        if self._listeners.pop(room, None) is not None and (server := self._homes.pop(room)) is not None:
            server.subscriber.unfollow(self._keys(room))

    async def followed(self, room: str) -> None:
        """See `Bus.followed`."""
        keys = self._keys(room)
        with self._owing(keys):
            await (await self._home(keys)).subscriber.followed(keys)

    async def tail(self, room: str, after: str | None) -> list[Kept]:
        """See `Bus.tail`."""
        keys = self._keys(room)
        found: list[Kept] = []
        while True:
            start = b"-" if after is None else b"(" + after.encode()
            question = pack(b"XRANGE", keys.log, start, b"+", b"COUNT", b"%d" % PAGE_ENTRIES)
            with self._owing(keys):
                [entries] = await self._ask(keys, question, 1)
            if not isinstance(entries, list):
                return found
            for entry in entries:
                match entry:
                    case [bytes(position), [b"m", bytes(message)]]:
                        found.append(Kept(position.decode(), message))
                    case [bytes(position), *_]:
                        pass  # not one of ours
            if len(entries) < PAGE_ENTRIES:
                return found
            after = position.decode()

    def mark(self, room: str) -> None:
        """See `Bus.mark`."""
        self._notes.mark(room, now=asyncio.get_running_loop().time())
        self._tell_notes()

    def unmark(self, room: str, *, node: str | None = None) -> None:
        """See `Bus.unmark`."""
        self._notes.unmark(room, node)
        self._tell_notes()

    async def marks(self) -> list[Mark]:
        """See `Bus.marks`. Ages are by the server's clock, at both ends."""
        return read_marks(*await self._ask(self._everyone, marks_question(self._marks_key), 2))

    # ------------------------------------------------------------------------------------------------- names

    def _keys(self, room: str) -> Keys:
        keys = self._known.get(room)
        if keys is None:
            if len(self._known) >= KEYS_MAX:
                self._known.clear()
            keys = self._known[room] = self._name(room, "*" if room == EVERYONE else quote(room, safe=""))
        return keys

    def _name(self, room: str, tag: str) -> Keys:
        log = f"{self._prefix}:{{{tag}}}:log".encode()
        channel = f"{self._channel_prefix}:{{{tag}}}:live".encode()
        return Keys(
            room,
            slot_of(log),
            log,
            channel,
            keep_head(log, self._limits.log_entries_max),
            say_head(channel, sharded=self._is_cluster),
        )

    def _ping_keys(self, spans: list[Span]) -> Keys:
        """A channel of this node's own that is at home at a server."""
        number = 0
        while True:
            keys = self._name("", f"@{self.node}-{number}")
            if any(span.first <= keys.slot <= span.last for span in spans):
                return keys
            number += 1

    # ------------------------------------------------------------------------------------------------- servers

    async def _home(self, keys: Keys) -> Server:
        if not self._laid_out.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.timeout_s):
                    await self._laid_out.wait()
        server = self._slots[keys.slot]
        if server is None:
            raise BusUnavailable(self.problem or "no server of the cluster has this room")
        return server

    async def _ask(self, keys: Keys, question: bytes, replies: int) -> list[object]:
        answers = await (await self._home(keys)).asker.ask(question, replies)
        for answer in answers:
            if isinstance(answer, Refusal):
                if is_moved(answer):
                    self._look_again.set()
                raise BusUnavailable(str(answer)) from answer
        return answers

    @contextlib.contextmanager
    def _owing(self, keys: Keys) -> Iterator[None]:
        """Who is told that the bus is away is told when it is back, even if no message is known to be lost."""
        try:
            yield
        except BusUnavailable:
            if (server := self._homes.get(keys.room)) is not None:
                server.shared.owe([keys.channel])
            raise

    def _tell_notes(self) -> None:
        server = self._slots[self._everyone.slot]
        if server is not None and self._notes:
            server.sender.wake()

    async def _connect(self, address: Address) -> Link:
        if self._target.mode is Mode.SENTINEL:
            timeout_s = min(SENTINEL_TIMEOUT_S, self._limits.timeout_s)
            address = await find_master(self._target, timeout_s=timeout_s)
        name = f"crdt-sync-{self.node}"
        return await Link.open(self._target, address, timeout_s=self._limits.timeout_s, name=name)

    async def _keep_laid_out(self) -> None:
        """Keep knowing which server of the cluster has what, for good."""
        while True:
            self._look_again.clear()
            try:
                spans = await read_layout(self._target, self._servers, timeout_s=self._limits.timeout_s)
            except LinkLost as error:
                self._health.down(self, str(error))
                self._look_again.set()
            except Exception as error:
                log.exception("bus_failed")
                self._health.down(self, repr(error))
            else:
                await self._lay_out(spans)
                self._health.up(self)
            await asyncio.sleep(LOOK_AGAIN_S)
            if self.problem is None:
                await self._look_again.wait()

    async def _lay_out(self, spans: list[Span]) -> None:
        spans_of: defaultdict[Address, list[Span]] = defaultdict(list)
        for span in spans:
            spans_of[span.address].append(span)
        before = set(self._servers.values())
        gone = self._assign(spans_of)
        for server in set(self._servers.values()) - before:
            server.open()
        await asyncio.gather(*(server.close() for server in gone))

    def _assign(self, spans_of: dict[Address, list[Span]]) -> list[Server]:
        """Give the slots to their servers, and the rooms with them.

        Returns:
            Servers that aren't needed any more.
        """
        gone = []
        for address, server in list(self._servers.items()):
            slot = server.shared.keys.slot
            if not any(span.first <= slot <= span.last for span in spans_of.get(address, ())):
                gone.append(self._servers.pop(address))
        self._slots = [None] * SLOTS
        for address, spans in spans_of.items():
            server = self._servers.get(address) or self._add_server(address, spans)
            for span in spans:
                self._slots[span.first : span.last + 1] = [server] * (span.last + 1 - span.first)
        for room, listener in self._listeners.items():
            self._settle_in(self._keys(room), listener)
        marks_home = self._slots[self._everyone.slot]
        for server in (*gone, *self._servers.values()):
            if server is marks_home and server.sender.notes is None:
                server.sender.notes = self._notes
                self._notes.renew()
            elif server is not marks_home:
                server.sender.notes = None
        self._laid_out.set()
        early, self._early = self._early, []
        for keys, message, keep in early:
            self.publish(keys.room, message, keep=keep)
        return gone

    def _settle_in(self, keys: Keys, listener: Listener) -> None:
        old, new = self._homes.get(keys.room), self._slots[keys.slot]
        if old is not new and old is not None:
            old.subscriber.unfollow(keys)
        self._homes[keys.room] = new
        if new is not None:
            new.subscriber.follow(keys, listener)
            if old is not new:
                new.shared.owe([keys.channel])

    def _add_server(self, address: Address, spans: list[Span]) -> Server:
        async def connect() -> Link:
            return await self._connect(address)

        shared = Shared(self._ping_keys(spans), self._limits, self.counters, self._health, self._look_again.set)
        is_sentinel = self._target.mode is Mode.SENTINEL
        server = Server(shared, connect, sharded=self._is_cluster, probe_role=is_sentinel)
        self._servers[address] = server
        return server
