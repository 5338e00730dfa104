"""What the servers are given to do."""

from __future__ import annotations

from .connecting import Idle, Storm
from .editing import Editing
from .growing import Growth
from .keeping import ColdOpen, Durable
from .measured import Work

WORKS: dict[str, Work] = {
    "A": Editing("fan-out: 1 sender, 100 receivers, window 8", rooms=1, clients=101, senders=1, window=8),
    "B": Editing("small rooms: 100 × 4, 1 sender each, window 1", rooms=100, clients=4, senders=1, window=1),
    "C": Editing("busy rooms: 10 × 20, all send 10/s", rooms=10, clients=20, senders=20, rate=10),
    "D": Idle("idle: 1,000 rooms × 4", rooms=1000, clients=4),
    "E": Storm("connect storm: 1,000 rooms × 4, and again after kill -9", rooms=1000, clients=4),
    "F": Durable("time to durable: 100 rooms, 200 updates/s in all", rooms=100, rate=200),
    "G": Editing(
        "two nodes through Redis: 50 rooms with a client at each, 1,000 updates/s in all",
        rooms=50,
        clients=2,
        senders=2,
        rate=10,
        nodes=2,
    ),
    "H": Editing(
        "100 editors of a document, 1 update/s each, cursors 20/s",
        rooms=1,
        clients=100,
        senders=100,
        rate=1,
        cursor_rate=20,
    ),
    "I": ColdOpen("cold open: a text of 1 MB in 20,000 updates"),
    "J": Editing(
        "10,000 connections: 2,500 rooms × 4, each fifth sends 1/s",
        rooms=2500,
        clients=4,
        every=5,
        rate=1,
        renewal_s=15,
        tolerant=True,
    ),
    "K": Growth("growth: 40 rooms × 4 that edit for two minutes each, then others do; people come and go"),
}
BY_NAME_ONLY = frozenset("K")
"""Takes an hour."""
