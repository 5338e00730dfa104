"""A trip as JSON for programs, and as Markdown for people."""

import re
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from .trip_model import Attachment, Comment, ItineraryItem, Reply, Trip


def trip_to_json(trip: Trip) -> dict[str, Any]:
    """Write a trip as strict JSON: the fields of `Trip`, moments as ISO 8601, and `costs` beside the budget."""
    form: dict[str, Any] = _plain({**asdict(trip), "costs": trip.costs()})
    return form


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, datetime) else value


def trip_to_markdown(trip: Trip) -> str:
    """Write a trip for people, as CommonMark with tables. Nothing that a client wrote is markup in it."""
    blocks = [f"# {_line(trip.title) or 'A trip without a title'}", *_paragraphs(trip.description), _who(trip)]
    for day, items in groupby(trip.itinerary, attrgetter("day")):
        blocks += ["## Without a day" if day is None else f"## Day {day}", *map(_item, items)]
    blocks += [*_money(trip), *_section("Notes", _paragraphs(trip.notes))]
    blocks += _section("Attachments", map(_attachment, trip.attachments))
    blocks += _section("Comments", map(_comment, trip.comments))
    return "\n\n".join(filter(None, blocks)) + "\n"


def _section(title: str, blocks: Iterable[str]) -> list[str]:
    inside = list(blocks)
    return [f"## {title}", *inside] if inside else []


def _who(trip: Trip) -> str:
    others = [f"{_line(user)} ({role})" for user, role in trip.collaborators.items()]
    owner = [f"Owner: {_line(trip.owner_id)}."] if trip.owner_id else []
    return " ".join([*owner, *([f"With {', '.join(others)}."] if others else [])])


def _item(item: ItineraryItem) -> str:
    facts = [item.type, item.time_slot, item.booking_status if item.booking_status != "none" else None]
    told = [_line(fact) for fact in facts if fact]
    if item.cost is not None:
        told.append(f"{_amount(item.cost)} {item.currency or ''}".strip())
    head = f"- **{_line(item.title) or 'Untitled'}**{': ' if told else ''}{', '.join(told)}"
    return _below(head, _paragraphs(item.notes))


def _money(trip: Trip) -> list[str]:
    costs = trip.costs()
    currencies = sorted({*costs, *trip.budget})
    rows = ["| | Budget | Costs | Left |", "|---|--:|--:|--:|"]
    for currency in currencies:
        budget, cost = trip.budget.get(currency), costs.get(currency, 0.0)
        known = (
            ["–", _amount(cost), "–"] if budget is None else [_amount(budget), _amount(cost), _amount(budget - cost)]
        )
        rows.append(f"| {currency} | {' | '.join(known)} |")
    return _section("Budget", ["\n".join(rows)] if currencies else [])


def _attachment(attachment: Attachment) -> str:
    name = _line(attachment.name or attachment.url or "") or "Unnamed"
    url = attachment.url or ""
    # Anything else might run something where the page is shown.
    return f"- [{name}](<{url}>)" if re.fullmatch(r"https?://[^\s<>\\]+", url) else f"- {name}"


def _comment(comment: Comment) -> str:
    about = ""
    if comment.target is not None and comment.target.type != "trip":
        about = f", on {comment.target.type} {_line(comment.target.path)}".rstrip()
    head = _said(comment, about + (", resolved" if comment.resolved else ""))
    replies = [_below(_said(reply, ""), _paragraphs(reply.content)) for reply in comment.replies]
    return _below(head, [*_paragraphs(comment.content), *replies])


def _said(what: Comment | Reply, more: str) -> str:
    when = "" if what.created_at is None else what.created_at.astimezone(UTC).strftime(", %Y-%m-%d %H:%M UTC")
    return f"- **{_line(what.author_id or '') or 'Somebody'}**{when}{more}"


def _below(head: str, blocks: Iterable[str]) -> str:
    """A list item, and what is in it."""
    indented = [re.sub("(?m)^(?=.)", "  ", block) for block in blocks]
    return "\n\n".join([head, *indented])


def _amount(amount: float) -> str:
    return f"{amount:.2f}"


def _line(text: str) -> str:
    """Somebody's words in one line."""
    return _escape(" ".join(text.split()))


def _paragraphs(text: str) -> list[str]:
    """Somebody's words as paragraphs, each with its lines."""
    paragraphs: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip():
            paragraphs[-1].append(_line(line))
        else:
            paragraphs.append([])
    return ["\\\n".join(lines) for lines in paragraphs if lines]


def _escape(line: str) -> str:
    escaped = re.sub(r"[\\`*_\[\]<>&~|$#]", r"\\\g<0>", line).replace("\0", "\ufffd")
    # What makes a list, a heading or a rule of a line.
    return re.sub(r"^(?:([-+=:])|(\d+)([.)]))", lambda at: f"\\{at[1]}" if at[1] else f"{at[2]}\\{at[3]}", escaped)
