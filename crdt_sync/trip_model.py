"""What a trip consists of, and what each part of it may be; docs/reference/trips.md describes it for those who write clients.

Leaves reading a trip out of a document to `trips`, writing one to `trip_edits`, JSON and Markdown to `trip_forms`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

VERSION = 1
"""Of the model, as `metadata.version`."""

ITEM_TYPES = ("hotel", "attraction", "restaurant", "transport", "free")
BOOKING_STATUSES = ("none", "pending", "confirmed", "cancelled")
ROLES = ("editor", "viewer")
TARGETS = ("trip", "item", "day", "budget", "attachment")

TEXT_ROOTS = ("title", "description", "notes")
MAP_ROOTS = ("trip", "collaborators", "budget", "metadata")
ARRAY_ROOTS = ("itinerary", "attachments", "comments")

ORDINAL_MAX = 10_000
AMOUNT_MAX = 1e12
"""Sums of such amounts are exact to the cent for thousands of them."""


@dataclass(frozen=True, slots=True)
class ItineraryItem:
    """Something to do, or a place to be."""

    id: str | None
    day: int | None
    """Day of the trip, from 1."""
    rank: float | None
    """Where in its day: ascending, those without one last."""
    time_slot: str | None
    """When, in words: `morning`, `09:30–11:00`."""
    type: str | None
    """One of `ITEM_TYPES`."""
    resource_id: str | None
    """What is booked, in the application's own terms."""
    title: str
    notes: str
    booking_status: str | None
    """One of `BOOKING_STATUSES`."""
    cost: float | None
    currency: str | None
    """ISO 4217, three capital letters."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that is kept elsewhere."""

    id: str | None
    name: str
    url: str | None
    added_by: str | None
    added_at: datetime | None


@dataclass(frozen=True, slots=True)
class Target:
    """What a comment is about."""

    type: str
    """One of `TARGETS`."""
    path: str
    """Which one: an item's or attachment's id, a day's number, a currency; empty for the trip."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a comment."""

    id: str | None
    author_id: str | None
    content: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment with its answers, oldest first."""

    id: str | None
    target: Target | None
    author_id: str | None
    content: str
    resolved: bool
    created_at: datetime | None
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """Facts about the document."""

    created_at: datetime | None
    updated_at: datetime | None
    version: int | None
    """See `VERSION`."""


@dataclass(frozen=True, slots=True)
class Trip:
    """A trip as it reads. Texts are without their formats."""

    title: str
    description: str
    notes: str
    owner_id: str | None
    collaborators: Mapping[str, str]
    """User to one of `ROLES`."""
    itinerary: tuple[ItineraryItem, ...]
    """By day, and within a day by rank; those without a day last."""
    budget: Mapping[str, float]
    """Currency to amount."""
    attachments: tuple[Attachment, ...]
    comments: tuple[Comment, ...]
    metadata: Metadata
    oddities: tuple[str, ...]
    """What of the document isn't in here, or is but shouldn't be so, each with its path."""

    def costs(self) -> dict[str, float]:
        """Currency to the sum of what the items cost, without those that are cancelled."""
        costs: dict[str, list[float]] = {}
        for item in self.itinerary:
            if item.cost is not None and item.currency is not None and item.booking_status != "cancelled":
                costs.setdefault(item.currency, []).append(item.cost)
        return {currency: math.fsum(each) for currency, each in sorted(costs.items())}


# ------------------------------------------------------------------------------------------------------------
# What single values may be. Reading and writing go by the same rules.


def is_name(value: Any) -> bool:
    """An id: a string that isn't empty, or endless."""
    return isinstance(value, str) and 0 < len(value) <= 200


def is_ordinal(value: Any) -> bool:
    """A number of what is counted from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= ORDINAL_MAX


def is_number(value: Any) -> bool:
    """A number that can be compared."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_amount(value: Any) -> bool:
    """An amount of money."""
    return is_number(value) and 0 <= value <= AMOUNT_MAX


def is_currency(value: Any) -> bool:
    """A currency's code."""
    return isinstance(value, str) and len(value) == 3 and value.isascii() and value.isalpha() and value.isupper()


def read_moment(value: Any) -> datetime | None:
    """An ISO 8601 moment with its offset, as `toISOString()` writes it; None for anything else."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else None
