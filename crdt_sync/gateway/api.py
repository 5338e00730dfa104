"""The HTTP API below `/api/v1`: rooms, connections, revocations. What goes about in a document's past is in `past_api`.

A room is one segment of a path, percent-encoded (`a/b` is `a%2Fb`). Whoever asks needs a grant for the room, as for a
connection to it. What isn't about a single room needs one for `*`.
"""

import asyncio
import heapq
import json
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import JSONResponse, Response

from auth import Right
from persistence import DocumentHead, Revocation, RevocationKind, StoreError

from ..errors import StoreBehind
from ..moments import iso_of
from ..pacing import unhurried
from ..rooms import FORGET_AFTER_S
from ..sessions import Stay
from ..urgency import Urgency
from .calls import (
    JSON,
    SMALL_BODY_BYTES_MAX,
    UPDATE,
    Call,
    Operation,
    content_of,
    head_seq_of,
    read_format,
    read_number,
)
from .problems import Problem

PAGE = 100
PAGE_MAX = 1000
# So many documents that the caller may not read, or doesn't ask for, are passed by for one answer.
SCAN_MAX = 10_000
AFTER = "\x01"
ORDERS = ("id", "outbox")
# A room that is opened to see who is there hears of other nodes' clients within this time.
PRESENCE_S = 0.3
# So long after its deletion, this node usually has a document open no more.
CLOSE_S = 2.0
# A time near the end of the calendar has no counterpart in some time zones, and stores couldn't read it again.
UNTIL_MAX = timedelta(days=3653)
KINDS: dict[str, RevocationKind] = {"user": "user", "token": "token", "room": "room"}


async def list_rooms(call: Call) -> Response:
    """List the documents that the caller may read, by name.

    `?prefix=`, `?contains=`, `?after=` (a name) and `?limit=` (100, at most 1000) select. `next` is what to give as `after`,
    null at the end; a page may be shorter than asked for and not be the last.
    """
    limit = read_number(call.request, "limit", PAGE, PAGE_MAX)
    query = call.request.query_params
    prefix, contained, after = query.get("prefix", ""), query.get("contains", ""), query.get("after", "")
    # No name has control characters, so this is the first that could follow.
    start: str | None = max(prefix, after + AFTER) if after else prefix
    found: list[DocumentHead] = []
    passed = 0
    while start is not None and len(found) < limit and passed < SCAN_MAX:
        page = await call.parts.store.documents(start=start, limit=PAGE_MAX)
        start = None if len(page) < PAGE_MAX else page[-1].name + AFTER
        async for document in unhurried(page):
            passed += 1
            if not document.name.startswith(prefix):
                start = None
                break
            if contained in document.name and call.grant.right(document.name):
                found.append(document)
            if len(found) == limit:
                start = document.name + AFTER
                break
    here = Counter(stay.room.name for stay in call.parts.sessions)
    rooms = [_summary(call, one.name, one.head_seq, here[one.name]) for one in found]
    return JSONResponse({"rooms": rooms, "next": start.removesuffix(AFTER) if start is not None else None})


async def show_room(call: Call) -> Response:
    """Tell what is known of a document."""
    seq = await head_seq_of(call)
    here = sum(stay.room.name == call.room for stay in call.parts.sessions)
    return JSONResponse(_summary(call, call.room, seq, here))


async def get_document(call: Call) -> Response:
    """Get a document's content: as one Yjs update (v1), or with `?format=` as `json`, `rich` (JSON with types) or `text`."""
    read_format(call.request)
    await head_seq_of(call)
    async with call.parts.rooms.hold(call.room) as room:
        update = await room.difference()
    return await content_of(call, update)


async def apply_update(call: Call) -> Response:
    """Apply a Yjs update (v1), the body of the request, as a client would; answers when it is stored."""
    update = await call.body(call.settings.message_bytes_max)
    async with call.parts.rooms.hold(call.room) as room:
        outcome = await room.accept_in_turns(update, sender=None, user=call.grant.user)
        await room.until_stored()
        return JSONResponse({"outcome": outcome.name.lower()})


async def delete_room(call: Call) -> Response:
    """Delete a document. Its clients are closed (4404), and its name stays taken until it is forgotten."""
    try:
        deleted = await call.parts.rooms.delete(call.room)
    except TimeoutError as error:
        raise StoreBehind("what was accepted can't be stored, so it can't be deleted") from error
    if not deleted:
        raise Problem(404, "no such document")
    return Response(status_code=204)


async def list_deleted(call: Call) -> Response:
    """List deleted documents, by name; `?after=` and `?limit=` as for rooms."""
    limit = read_number(call.request, "limit", PAGE, PAGE_MAX)
    after = call.request.query_params.get("after", "")
    found = await call.parts.store.documents(deleted=True, start=after + AFTER if after else "", limit=limit)
    rooms = [{"name": one.name, "deleted_at": iso_of(one.deleted_at)} for one in found]
    return JSONResponse({"rooms": rooms, "next": found[-1].name if len(found) == limit else None})


async def undelete_room(call: Call) -> Response:
    """Bring a deleted document back as it was."""
    if not await call.parts.store.undelete(call.room):
        raise Problem(404, "no such deleted document")
    return Response(status_code=204)


async def forget_room(call: Call) -> Response:
    """Forget a deleted document for good, and allow its name again: a client with an old copy may bring that back."""
    (found,) = await call.parts.store.documents(deleted=True, start=call.room, limit=1) or (None,)
    if found is None or found.name != call.room or found.deleted_at is None:
        raise Problem(404, "no such deleted document")
    # Whoever has it open still could write old updates into a new document.
    wait_s = FORGET_AFTER_S - (datetime.now(UTC) - found.deleted_at).total_seconds() if call.parts.store.shared else 0.0
    if call.room in call.parts.rooms:
        wait_s = max(wait_s, CLOSE_S)
    if wait_s > 0:
        headers = {"retry-after": str(int(wait_s) + 1)}
        raise Problem(409, "deleted just now", "it may still be open somewhere", headers=headers)
    await call.parts.store.purge(call.room)
    call.parts.archiving.forget_all(call.room)
    return Response(status_code=204)


async def show_presence(call: Call) -> Response:
    """Tell who is in a room, on any node: the awareness state of each client."""
    rooms = call.parts.rooms
    opened = call.room not in rooms
    await head_seq_of(call)
    async with rooms.hold(call.room) as room:
        if opened and rooms.nodes is not None:
            await asyncio.sleep(PRESENCE_S)
        states = room.who_is_there()
    # The states as they are: some hold what Python's JSON reads but doesn't write.
    clients = (b'{"client":%d,"clock":%d,"state":%b}' % (one.client, one.clock, one.state) for one in states)
    return Response(b'{"clients":[%b]}' % b",".join(clients), media_type="application/json")


async def list_room_connections(call: Call) -> Response:
    """List the connections of a room to this node."""
    return JSONResponse({"connections": [_stay(one) for one in call.parts.sessions if one.room.name == call.room]})


async def list_open(call: Call) -> Response:
    """List the rooms that are open on this node and that the caller may read, the busiest first.

    `work` is the part of this node's work in the last seconds that was because of the room, from 0 to 1. `?limit=` (100,
    at most 1000) are listed, of `open`.
    """
    limit = read_number(call.request, "limit", PAGE, PAGE_MAX)
    shares = call.parts.load.shares()
    readable = [room async for room in unhurried(list(call.parts.rooms)) if call.grant.right(room.name)]
    busiest = heapq.nlargest(limit, readable, key=lambda room: (shares.get(room.name, 0.0), len(room.connections)))
    rooms = [
        _summary(call, room.name, room.stored_seq, len(room.connections))
        | {"unstored": room.unstored, "work": round(shares.get(room.name, 0.0), 4)}
        for room in busiest
    ]
    return JSONResponse({"rooms": rooms, "open": len(readable)})


async def list_connections(call: Call) -> Response:
    """List connections to this node: by id, or with `?order=outbox` those for which most waits.

    `?contains=` (a part of a user's id, a room's name, or an address), `?after=` (an id) and `?limit=` (100, at most 1000) select. `next` is what to give as `after`, null at the end, and
    where the order is another than by id.
    """
    limit = read_number(call.request, "limit", PAGE, PAGE_MAX)
    order = call.request.query_params.get("order", "id")
    if order not in ORDERS:
        raise Problem(400, "unknown order", f"order is one of {', '.join(ORDERS)}")
    after = read_number(call.request, "after", 0, sys.maxsize) if "after" in call.request.query_params else 0
    contained = call.request.query_params.get("contains", "")
    every = list(call.parts.sessions)
    stays = [stay for stay in every if not contained or _has(stay, contained)]
    if order == "outbox":
        found = heapq.nlargest(limit, stays, key=lambda stay: stay.connection.outbox_bytes)
    else:
        found = heapq.nsmallest(
            limit, (one for one in stays if one.connection.id > after), key=lambda one: one.connection.id
        )
    next_ = found[-1].connection.id if order == "id" and len(found) == limit else None
    return JSONResponse({"connections": [_stay(one) for one in found], "next": next_, "open": len(every)})


async def close_connection(call: Call) -> Response:
    """Close a connection to this node, with 4403, or `?code=1012` for a client that may come back.

    With `?since=`, as listed, only if it began then: another process, or this one after a restart, counts from 1 too.
    """
    codes = {"4403": "closed by an admin", "1012": "server restarting"}
    code = call.request.query_params.get("code", "4403")
    if code not in codes:
        raise Problem(400, "unknown code", f"code is one of {', '.join(codes)}")
    since = call.request.query_params.get("since")
    for stay in call.parts.sessions:
        if str(stay.connection.id) == call.values["connection"] and since in (None, _stay(stay)["since"]):
            stay.connection.close(int(code), codes[code])
            return Response(status_code=204)
    raise Problem(404, "no such connection", "connections are those of this node")


async def list_revocations(call: Call) -> Response:
    """List what is revoked."""
    return JSONResponse({"revocations": [_revocation(one) for one in call.parts.revocations]})


async def revoke(call: Call) -> Response:
    """Revoke what was issued to a user (`{"user": …}`), one token (`{"token": jti}`) or what was granted for a room.

    On every node within a second. It is remembered until all tokens concerned have expired, or until `until`.
    """
    try:
        wanted = json.loads(await call.body(SMALL_BODY_BYTES_MAX))
        kinds = KINDS.keys() & wanted.keys()
        if len(kinds) != 1 or wanted.keys() - kinds - {"until"}:
            raise ValueError('the body is {"user"|"token"|"room": …, "until": …}, the latter if you like')
        (kind,) = kinds
        now = datetime.now(UTC)
        until = now + timedelta(seconds=call.settings.jwt_lifetime_max_s + 2 * call.settings.jwt_leeway_s)
        if "until" in wanted:
            until = datetime.fromisoformat(wanted["until"])
            if until <= now or until.astimezone(UTC) > now + UNTIL_MAX:
                raise ValueError("until is in the future, and not by more than ten years")
        revocation = Revocation(KINDS[kind], wanted[kind], revoked_at=now, until=until)
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        raise Problem(400, "malformed request", str(error)) from error
    try:
        await call.parts.revocations.revoke(revocation)
    except StoreError as error:
        raise Problem(503, "not remembered", "it holds on running nodes, but isn't stored: do it again") from error
    return JSONResponse(_revocation(revocation), status_code=201)


async def unrevoke(call: Call) -> Response:
    """Take a revocation back."""
    kind = KINDS.get(call.values["kind"])
    if kind is None or not await call.parts.revocations.unrevoke(kind, call.values["value"]):
        raise Problem(404, "no such revocation")
    return Response(status_code=204)


async def drain(call: Call) -> Response:
    """Have this node go away, and with it all that serve the same port: as SIGTERM does. Asked again, nothing changes."""
    draining = call.parts.drain
    if not draining.urgency:
        draining.tell_others()
        draining.ask(Urgency.DRAIN)
    answer = {
        "draining": True,
        "connections": len(call.parts.sessions),
        "ends_within_s": round(draining.ends_in_s(), 3),
    }
    return JSONResponse(answer, status_code=202)


OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/rooms", Right.READ, list_rooms, any_room=True, query=("prefix", "contains", "after", "limit")),
    Operation("GET", "/rooms/{room}", Right.READ, show_room),
    Operation("DELETE", "/rooms/{room}", Right.ADMIN, delete_room),
    Operation("GET", "/rooms/{room}/document", Right.READ, get_document, query=("format",), answer=UPDATE),
    Operation("POST", "/rooms/{room}/updates", Right.WRITE, apply_update, body=UPDATE),
    Operation("GET", "/rooms/{room}/presence", Right.READ, show_presence),
    Operation("GET", "/rooms/{room}/connections", Right.ADMIN, list_room_connections),
    Operation("GET", "/deleted", Right.ADMIN, list_deleted, query=("after", "limit")),
    Operation("POST", "/deleted/{room}/undelete", Right.ADMIN, undelete_room),
    Operation("DELETE", "/deleted/{room}", Right.ADMIN, forget_room),
    Operation("GET", "/open", Right.READ, list_open, any_room=True, query=("limit",)),
    Operation("GET", "/connections", Right.ADMIN, list_connections, query=("order", "contains", "after", "limit")),
    Operation("DELETE", "/connections/{connection}", Right.ADMIN, close_connection, query=("code", "since")),
    Operation("POST", "/drain", Right.ADMIN, drain),
    Operation("GET", "/revocations", Right.ADMIN, list_revocations),
    Operation("POST", "/revocations", Right.ADMIN, revoke, body=JSON),
    Operation("DELETE", "/revocations/{kind}/{value}", Right.ADMIN, unrevoke),
)


def _summary(call: Call, name: str, seq: int, connections: int) -> dict[str, Any]:
    rooms = call.parts.rooms
    return {
        "name": name,
        "seq": seq,
        "open": name in rooms,
        "connections": connections,
        "bytes": rooms.content_bytes(name),
    }


def _has(stay: Stay, text: str) -> bool:
    return any(one is not None and text in one for one in (stay.connection.session.user, stay.room.name, stay.address))


def _stay(stay: Stay) -> dict[str, Any]:
    connection = stay.connection
    return {
        "id": connection.id,
        "room": stay.room.name,
        "user": connection.session.user,
        "address": stay.address,
        "since": iso_of(datetime.fromtimestamp(stay.since, UTC)),
        "may_write": connection.session.may_write,
        "outbox_bytes": connection.outbox_bytes,
        "refused_updates": connection.session.refused_updates,
    }


def _revocation(one: Revocation) -> dict[str, str | None]:
    return {one.kind: one.value, "revoked_at": iso_of(one.revoked_at), "until": iso_of(one.until)}
