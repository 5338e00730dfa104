"""What a work is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .servers import Server, Setup

Numbers = dict[str, float]


class Broken(Exception):
    """A server lost something."""


@dataclass(frozen=True)
class Timing:
    """How long each work is done."""

    warm_up_s: float
    seconds: float
    at_begin: Callable[[Server], object] = bool
    """Is called when measuring begins."""
    growth_s: float = 3600
    """How long growth is watched."""


class Work(Protocol):
    """Something to do with a server."""

    @property
    def title(self) -> str:
        """What it is, in a few words."""

    @property
    def setup(self) -> Setup:
        """How the server is started for it."""

    def measure(self, server: Server, timing: Timing) -> Numbers:
        """Do it.

        Raises:
            Broken: Something didn't arrive, or documents differ.
        """
