"""Updates and cursors that clients send, and what the others got of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pycrdt

from .clients import Client
from .measured import Broken, Numbers
from .wire import CURSOR


class Load:
    """Updates that are sent, and who has got them. Numbers of one sender's updates follow upon each other.

    Clients that are lost on the way neither count nor have to get anything.
    """

    def __init__(self, clients: list[Client], senders: list[Client]) -> None:
        self.over = False
        self._clients = clients
        self._senders = senders
        self._share = 10**8 // len(senders)
        self._sent: list[list[float]] = [[] for _ in senders]
        self._late: list[float] = []
        self._moved: list[list[float]] = [[] for _ in senders]
        self._there = 0
        self._members: dict[int, list[Client]] = {}
        for client in clients:
            self._members.setdefault(client.room, []).append(client)
        self._senders_in: dict[int, list[int]] = {room: [] for room in self._members}
        for number, client in enumerate(senders):
            self._senders_in[client.room].append(number)

    def send(self, sender: int) -> None:
        """Have a sender insert its next token."""
        sent = self._sent[sender]
        sent.append(time.perf_counter())
        self._senders[sender].send(sender * self._share + len(sent) - 1)

    def closed(self, window: int) -> Callable[[Client, bytes, float], None]:
        """Keep so many updates of every sender on their way, one sender a room; what takes what comes."""
        share = self._share
        by_room = {client.room: number for number, client in enumerate(self._senders)}
        got = [0] * len(self._clients)
        receivers = [len(self._members[client.room]) - 1 for client in self._senders]
        left: list[dict[int, int]] = [{} for _ in self._senders]

        def send(sender: int) -> None:
            left[sender][len(self._sent[sender])] = receivers[sender]
            self.send(sender)

        def on_data(client: Client, data: bytes, now: float) -> None:
            number = client.latest(data)
            if number is None or self.over:
                return
            sender = by_room[client.room]
            if self._senders[sender] is client:
                return
            count = number - sender * share + 1
            waiting = left[sender]
            for update in range(got[client.number], count):
                waiting[update] -= 1
                if not waiting[update]:
                    del waiting[update]
                    send(sender)
            got[client.number] = max(count, got[client.number])

        if window:
            for sender in range(len(self._senders)):
                for _ in range(window):
                    send(sender)
        return on_data

    def move(self, sender: int) -> None:
        """Have a sender move its cursor."""
        moved = self._moved[sender]
        moved.append(time.perf_counter())
        self._senders[sender].move(sender * self._share + len(moved) - 1)

    def open(self, rate: float, cursor_rate: float, renewal_s: float = 0) -> Callable[[], float]:
        """Have clients do something at a rate, one after the other.

        Args:
            rate: Updates a second of each sender.
            cursor_rate: Moves of its cursor a second.
            renewal_s: How often every client says that it is still there; 0: never.

        Returns:
            What does what is due, and says when to be called again.
        """
        count, everybody = len(self._senders), self._clients
        plans: list[tuple[Callable[[int], None], int, float]] = [(self.send, count, 1 / rate / count)]
        if cursor_rate:
            plans.append((self.move, count, 1 / cursor_rate / count))
        if renewal_s:
            plans.append((lambda number: everybody[number].move(0), len(everybody), renewal_s / len(everybody)))
        began = time.perf_counter()
        done = [0] * len(plans)

        def tick() -> float:
            following = began + 1e9
            for plan, (do, among, interval) in enumerate(plans):
                while (due := began + done[plan] * interval) <= (now := time.perf_counter()):
                    self._late.append(now - due)
                    do(done[plan] % among)
                    done[plan] += 1
                following = min(following, due)
            return following

        return tick

    def all_there(self) -> bool:
        """Whether everybody has got everything."""
        while self._there < len(self._clients) and not self._missing(self._clients[self._there]):
            self._there += 1
        return self._there == len(self._clients)

    def deliveries(self) -> Iterator[tuple[float, float]]:
        """Every update that somebody has got from somebody else: when it was sent, and when it had arrived.

        Raises:
            Broken: Something is missing.
        """
        for client in self._clients:
            if client.lost:
                continue
            seen: set[int] = set()
            for number, at in client.arrivals():
                sender, update = divmod(number, self._share)
                if number in seen or self._senders[sender] is client:
                    continue
                seen.add(number)
                yield self._sent[sender][update], at
            if (expected := self._expected(client)) - seen:
                raise Broken(f"client {client.number} lacks {len(expected - seen)} of {len(expected)} updates")

    def check(self, began: float, ended: float, cpu_s: float) -> Numbers:
        """Read what everybody got.

        Args:
            began, ended: Between these, time counts.
            cpu_s: What the server took from then on.

        Raises:
            Broken: Something is missing, or documents differ.
        """
        delays: list[float] = []
        measured = in_time = 0
        for sent_at, at in self.deliveries():
            if at >= began:
                measured += 1
                if at < ended:
                    in_time += 1
                if sent_at >= began:
                    delays.append((at - sent_at) * 1000)
        self.compare()
        delays.sort()
        numbers = {
            "cpu_us": cpu_s / measured * 1e6,
            "core_in_all": cpu_s / (ended - began),
            "deliveries_per_s": in_time / (ended - began),
            "p50_ms": statistics.median(delays),
            "p99_ms": delays[int(len(delays) * 0.99)],
            "max_ms": delays[-1],
        }
        if self._late:
            # Of what was sent while time counted, how much had arrived by its end.
            numbers["kept_up"] = min(1.0, in_time / max(1, len(delays)))
            numbers["late_p99_ms"] = sorted(self._late)[int(len(self._late) * 0.99)] * 1000
        if any(self._moved):
            numbers |= self._cursors(began, ended)
        return numbers

    def _cursors(self, began: float, ended: float) -> Numbers:
        # Not every position has to arrive: the latest one is what counts.
        delays = []
        for client in self._clients:
            for number, at in client.arrivals(CURSOR):
                sender, move = divmod(number, self._share)
                if self._senders[sender] is client or move >= len(self._moved[sender]):
                    continue
                if began <= (moved_at := self._moved[sender][move]) < ended:
                    delays.append((at - moved_at) * 1000)
        delays.sort()
        return {
            "cursors_per_s": len(delays) / (ended - began),
            "cursors_p50_ms": statistics.median(delays),
            "cursors_p99_ms": delays[int(len(delays) * 0.99)],
        }

    def _expected(self, client: Client) -> set[int]:
        return {
            sender * self._share + update
            for sender in self._senders_in[client.room]
            if not (other := self._senders[sender]).lost and other is not client
            for update in range(len(self._sent[sender]))
        }

    def _missing(self, client: Client) -> bool:
        # Cheap, while the server is still busy: whether the last update of each sender is there. `check` looks at all.
        if client.lost:
            return False
        for sender in self._senders_in[client.room]:
            other = self._senders[sender]
            if other is not client and not other.lost and self._sent[sender]:
                last = sender * self._share + len(self._sent[sender]) - 1
                if client.received.rfind(b"~k%08d" % last) < 0:
                    return True
        return False

    def compare(self) -> None:
        """Build what each client has, from its own updates and those that it got: in a room all have to be the same.

        Raises:
            Broken: They aren't.
        """
        for room, members in self._members.items():
            if any(client.lost for client in members):
                continue
            own = {self._senders[sender].number: sender for sender in self._senders_in[room]}
            texts: dict[bytes, str] = {}
            shown: set[str] = set()
            for client in members:
                updates = client.updates()
                if client.number in own:
                    first = own[client.number] * self._share
                    sent = range(len(self._sent[own[client.number]]))
                    own_messages = [client.wire.update(first + n, client.yjs_id, n * 10) for n in sent]
                    updates += [found[1] for message in own_messages if (found := client.wire.read(message))]
                key = b"".join(updates)
                if key not in texts:
                    doc: pycrdt.Doc[Any] = pycrdt.Doc()
                    for update in updates:
                        doc.apply_update(update)
                    texts[key] = str(doc.get("t", type=pycrdt.Text))
                shown.add(texts[key])
            if len(shown) != 1:
                raise Broken(f"there are {len(shown)} versions of room {room}")
