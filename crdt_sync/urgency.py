"""How much of a hurry a process that should end is in, and what a signal says about that. Pure."""

import signal
from enum import IntEnum


class Urgency(IntEnum):
    """It only grows."""

    NONE = 0
    DRAIN = 1
    """Go away, as friendly as the settings say."""
    HASTEN = 2
    """No notice, no spread; but store everything."""
    END = 3
    """At once, whatever isn't stored."""


def urged(urgency: Urgency, number: int) -> Urgency:
    """How urgent it is after one more signal. Whoever presses Ctrl-C waits at a terminal."""
    least = Urgency.HASTEN if number == signal.SIGINT else Urgency.DRAIN
    return Urgency(min(Urgency.END, max(urgency + 1, least)))
