"""The HTTP API, as far as it is about a document's past: versions, reading it, what changed, and bringing it back.

Whoever reads the past sees what others have removed since, so that takes the right to write; and so does bringing it
back, which is an edit. A point in the past is a version's id, `seq:` and a number, or a time with its zone.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import JSONResponse, Response

from auth import Right

from ..changes import Change
from ..going_back import NameTaken, NotRestorable, Planner
from ..history import NoSuchPast, Past
from ..past_forms import CHANGES_FORMS, bucket_to_json, changes_to, past_to_json, version_to_json
from ..time_machine import ACTIVITY_BUCKETS_MAX, Plan, Point, TimeMachine, parse_point, parse_time, taking_back
from .access import require
from .calls import (
    JSON,
    SMALL_BODY_BYTES_MAX,
    UPDATE,
    Call,
    Operation,
    content_of,
    elsewhere,
    head_seq_of,
    read_format,
)
from .problems import Problem
from .sync import check_room_name

ACTIVITY_BUCKET_S = 3600


async def list_versions(call: Call) -> Response:
    """List the versions of a document, newest first."""
    await head_seq_of(call)
    return JSONResponse({"versions": [version_to_json(one) for one in await call.parts.store.versions(call.room)]})


async def take_version(call: Call) -> Response:
    """Take a version of a document as it is now, with a label (`{"label": …}`) if it is to be kept for ever."""
    wish = await _read_wish(call, {"label"})
    label = _text(wish, "label")
    await head_seq_of(call)
    async with call.parts.rooms.hold(call.room) as room:
        await room.until_stored()
        version = await call.parts.rooms.keep_version(room, kind="manual", label=label, user=call.grant.user)
    if version is None:
        raise Problem(409, "nothing to keep", "nothing was ever written to this document")
    return JSONResponse(version_to_json(version), status_code=201)


async def get_version(call: Call) -> Response:
    """Tell what is known of a version, or with `?format=` get what the document was then."""
    id = _id(call)
    if "format" in call.request.query_params:
        read_format(call.request)
        return await _content(call, await _read(call, Point(version=id)))
    await head_seq_of(call)
    found = next((one for one in await call.parts.store.versions(call.room) if one.id == id), None)
    if found is None:
        raise Problem(404, "no such version")
    return JSONResponse(version_to_json(found))


async def label_version(call: Call) -> Response:
    """Put a label on a version (`{"label": …}`), so that it is kept for ever, or take it off (null)."""
    wish = await _read_wish(call, {"label"})
    await head_seq_of(call)
    try:
        found = await call.parts.store.label_version(call.room, _id(call), _text(wish, "label"))
    except ValueError as error:
        raise Problem(400, "malformed request", str(error)) from error
    if not found:
        raise Problem(404, "no such version")
    return Response(status_code=204)


async def delete_version(call: Call) -> Response:
    """Delete a version."""
    await head_seq_of(call)
    versions = await call.parts.store.versions(call.room)
    if not await call.parts.store.delete_versions(call.room, [_id(call)]):
        raise Problem(404, "no such version")
    call.parts.archiving.forget(call.room, [one.id for one in versions if one.archived and one.id == _id(call)])
    return Response(status_code=204)


async def get_past(call: Call) -> Response:
    """Get what a document was: as of `?time=` or `?seq=`, in the form of `?format=`, as for the document.

    Headers tell of what it is: `crdt-sync-seq` is its last update's; `crdt-sync-exact` is `false` if what was asked for isn't
    kept any more, and this is the nearest version before it.
    """
    query = call.request.query_params
    if ("time" in query) == ("seq" in query):
        raise Problem(400, "malformed request", "either time or seq says when")
    point = _point(query["time"] if "time" in query else f"seq:{query['seq']}")
    if (point.time is None) == ("time" in query):
        raise Problem(400, "malformed request", "time is a time with its zone, and seq a number")
    read_format(call.request)
    return await _content(call, await _read(call, point))


async def get_diff(call: Call) -> Response:
    """Tell what differs between two points (`?from=`, `?to=`, by default now), and who made the difference, by path.

    `?format=` is `json`, `rich` (values with types) or `text`, for people.
    """
    query = call.request.query_params
    if "from" not in query:
        raise Problem(400, "malformed request", "from says since when: a version's id, seq:number, or a time")
    form = _changes_form(query.get("format", "json"))
    await head_seq_of(call)
    try:
        changes = await _machine(call).diff(call.room, _point(query["from"]), _point(query.get("to", "now")))
    except NoSuchPast as error:
        raise Problem(404, "no such past", str(error)) from error
    return Response(await elsewhere(call, _changes, form, changes), media_type="text/plain" if form == "text" else JSON)


async def get_activity(call: Call) -> Response:
    """Tell who changed how much when: `?since=` and `?until=` are times, `?bucket_s=` (3600) is how long a stretch is."""
    query = call.request.query_params
    try:
        until = parse_time(query["until"]) if "until" in query else datetime.now(UTC)
        since = parse_time(query["since"]) if "since" in query else until - timedelta(days=7)
        bucket_s = int(query.get("bucket_s", ACTIVITY_BUCKET_S))
        if bucket_s < 1 or (until - since).total_seconds() / bucket_s > ACTIVITY_BUCKETS_MAX:
            raise ValueError(f"at most {ACTIVITY_BUCKETS_MAX} stretches of bucket_s: ask for less, or longer ones")
    except ValueError as error:
        raise Problem(400, "malformed request", str(error)) from error
    await head_seq_of(call)
    try:
        buckets = await _machine(call).activity(call.room, since, until, bucket_s)
    except NoSuchPast:
        buckets = []
    return JSONResponse({"bucket_s": bucket_s, "activity": [bucket_to_json(one) for one in buckets]})


async def restore_document(call: Call) -> Response:
    """Bring back what a document showed, by an edit that its clients get like any other.

    `{"version": id}`, `{"seq": …}` or `{"time": …}` says when; `"roots": […]` which root types, all by default; `"dry_run": true`
    only shows what would change; `"as_new": name` makes another document of it. What can't be restored exactly is told
    (409), and nothing is done, unless `"anyway": true`. `"format"` is that of the changes, as for `diff`.
    """
    wish = await _read_wish(call, {"version", "seq", "time", "roots", "dry_run", "anyway", "as_new", "format"})
    point, roots, as_new = _point_of(wish), wish.get("roots"), _text(wish, "as_new")
    if roots is not None and (not isinstance(roots, list) or not all(isinstance(one, str) for one in roots)):
        raise Problem(400, "malformed request", "roots is a list of names")
    await head_seq_of(call)
    if as_new is not None:
        if roots is not None:
            raise Problem(400, "malformed request", "as_new takes all roots")
        return await _restore_as_new(call, point, check_room_name(as_new), dry_run=_flag(wish, "dry_run"))

    async def plan(current: bytes) -> Plan:
        return await _machine(call).plan_restore(call.room, point, current, roots=roots)

    return await _go_back(call, plan, wish, user=call.grant.user)


async def roll_back_user(call: Call) -> Response:
    """Take back what one user did (`{"user": …}`) since a moment, keeping the others' edits; else as for `restore`."""
    wish = await _read_wish(call, {"user", "version", "seq", "time", "dry_run", "anyway", "format"})
    point, user = _point_of(wish), _text(wish, "user")
    if user is None:
        raise Problem(400, "malformed request", "user says whose edits")
    await head_seq_of(call)

    async def plan(current: bytes) -> Plan:
        return await _machine(call).plan_rollback(call.room, user, point)

    return await _go_back(call, plan, wish, user=taking_back(user, call.grant.user))


OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/rooms/{room}/versions", Right.WRITE, list_versions),
    Operation("POST", "/rooms/{room}/versions", Right.WRITE, take_version, body=JSON),
    Operation("GET", "/rooms/{room}/versions/{version}", Right.WRITE, get_version, query=("format",)),
    Operation("PATCH", "/rooms/{room}/versions/{version}", Right.WRITE, label_version, body=JSON),
    Operation("DELETE", "/rooms/{room}/versions/{version}", Right.ADMIN, delete_version),
    Operation("GET", "/rooms/{room}/at", Right.WRITE, get_past, query=("time", "seq", "format"), answer=UPDATE),
    Operation("GET", "/rooms/{room}/diff", Right.WRITE, get_diff, query=("from", "to", "format")),
    Operation("GET", "/rooms/{room}/activity", Right.WRITE, get_activity, query=("since", "until", "bucket_s")),
    Operation("POST", "/rooms/{room}/restore", Right.WRITE, restore_document, body=JSON),
    Operation("POST", "/rooms/{room}/rollback", Right.WRITE, roll_back_user, body=JSON),
)


def _machine(call: Call) -> TimeMachine:
    async def run(work: Callable[..., Any], *args: object, **options: object) -> Any:
        return await elsewhere(call, work, *args, **options)

    return TimeMachine(call.parts.store, call.parts.rooms.turns, run, call.parts.archiving.archive)


async def _read(call: Call, point: Point) -> Past:
    await head_seq_of(call)
    try:
        return await _machine(call).read(call.room, point)
    except NoSuchPast as error:
        raise Problem(404, "no such past", str(error)) from error


async def _content(call: Call, past: Past) -> Response:
    headers = {"crdt-sync-seq": str(past.seq), "crdt-sync-exact": str(past.exact).lower()}
    return await content_of(call, past.update, headers=headers)


async def _go_back(call: Call, plan: Planner, wish: dict[str, Any], *, user: str | None) -> Response:
    form = _changes_form(wish.get("format", "json"))
    try:
        went = await call.parts.going_back.go(
            call.room,
            plan,
            dry_run=_flag(wish, "dry_run"),
            anyway=_flag(wish, "anyway"),
            by=call.grant.user,
            user=user,
            check=lambda: call.parts.access.check(call.grant, call.room),
        )
    except NoSuchPast as error:
        raise Problem(404, "no such past", str(error)) from error
    except NotRestorable as error:
        raise Problem(409, "not restorable", str(error)) from error
    answer: dict[str, Any] = {
        "past": past_to_json(went.plan.past),
        "impossible": list(went.plan.restoration.impossible),
        "changes": await elsewhere(call, changes_to, form, went.plan.changes),
        "done": went.done,
    }
    if went.done:
        answer["version_before"] = None if went.version_before is None else version_to_json(went.version_before)
    return JSONResponse(answer)


async def _restore_as_new(call: Call, point: Point, name: str, *, dry_run: bool) -> Response:
    require(call.grant, name, Right.WRITE)
    try:
        past, update = await _machine(call).copy(call.room, point)
        await call.parts.going_back.make(name, update, dry_run=dry_run, user=call.grant.user)
    except NoSuchPast as error:
        raise Problem(404, "no such past", str(error)) from error
    except NameTaken as error:
        raise Problem(409, "document exists", str(error)) from error
    return JSONResponse({"past": past_to_json(past), "name": name, "done": not dry_run})


# ------------------------------------------------------------------------------------------------------- in and out


async def _read_wish(call: Call, keys: set[str]) -> dict[str, Any]:
    """The JSON object that a request brings; nothing is an empty one."""
    body = await call.body(SMALL_BODY_BYTES_MAX)
    try:
        wish = json.loads(body) if body else {}
    except (ValueError, RecursionError) as error:
        raise Problem(400, "malformed request", "the body is JSON") from error
    if not isinstance(wish, dict) or wish.keys() - keys:
        raise Problem(
            400, "malformed request", f"the body is an object with no other keys than {', '.join(sorted(keys))}"
        )
    return wish


def _text(wish: dict[str, Any], key: str) -> str | None:
    text = wish.get(key)
    try:
        if text is not None and not text.encode():
            raise ValueError
    except (AttributeError, ValueError) as error:
        raise Problem(400, "malformed request", f"{key} is a text that isn't empty") from error
    return None if text is None else str(text)


def _flag(wish: dict[str, Any], key: str) -> bool:
    flag = wish.get(key, False)
    if not isinstance(flag, bool):
        raise Problem(400, "malformed request", f"{key} is true or false")
    return flag


def _point_of(wish: dict[str, Any]) -> Point:
    given = [key for key in ("version", "seq", "time") if wish.get(key) is not None]
    if len(given) != 1:
        raise Problem(400, "malformed request", "one of version, seq and time says when")
    (key,) = given
    value = wish[key]
    if key == "time":
        return _point(value) if isinstance(value, str) else _point("?")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise Problem(400, "malformed request", f"{key} is a number")
    return Point(version=value) if key == "version" else Point(seq=value)


def _point(text: str) -> Point:
    try:
        return parse_point(text)
    except ValueError as error:
        raise Problem(400, "malformed request", str(error)) from error


def _id(call: Call) -> int:
    text = call.values["version"]
    if not (text.isdecimal() and text.isascii() and len(text) <= 18):
        raise Problem(404, "no such version")
    return int(text)


def _changes_form(form: object) -> str:
    if form not in CHANGES_FORMS:
        raise Problem(400, "unknown format", f"format is one of {', '.join(CHANGES_FORMS)}")
    return str(form)


def _changes(form: str, changes: list[Change]) -> bytes:
    shown = changes_to(form, changes)
    if isinstance(shown, str):
        return shown.encode()
    return json.dumps({"changes": shown}, ensure_ascii=False, allow_nan=False).encode()
