"""Notes of trips that people edit together: an ordinary FastAPI service, with crdt-sync mounted in it.

The service knows who its users are and what they may do; crdt-sync asks it (`verify`). It edits like a user (`suggest`),
and hears of what was edited (`index`).
"""

import base64
import json
import os
import secrets
import time
from typing import Annotated

from fastapi import Body, Depends, FastAPI, HTTPException, Request, WebSocket
from itsdangerous import BadSignature, TimestampSigner
from pycrdt import Text
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import cookie_parser

from auth import CredentialInvalid, CredentialMissing, Credentials, Grant, Right
from crdt_sync import StoredChange, create_app, websocket_protocol

SESSION_SECRET = os.environ.get("SESSION_SECRET") or secrets.token_hex()
SESSION_S = 14 * 86400
PASSWORDS = {"ann": "ann's password", "bob": "bob's password"}
TRIPS = {"1": {"ann": Right.WRITE, "bob": Right.READ}, "2": {"bob": Right.WRITE}}

signer = TimestampSigner(SESSION_SECRET)
found_in: dict[str, str] = {}  # the search index: a trip's notes


async def verify(credentials: Credentials) -> Grant:
    """Say what a client may do, by the session cookie that its browser sends along."""
    cookie = cookie_parser(credentials.headers.get("cookie", "")).get("session")
    if cookie is None:
        raise CredentialMissing("no session cookie")
    try:
        user = json.loads(base64.b64decode(signer.unsign(cookie, max_age=SESSION_S)))["user"]
    except (BadSignature, ValueError, KeyError, TypeError) as error:
        raise CredentialInvalid("not a session of somebody who signed in") from error
    rooms = {f"trip-{trip}": members[user] for trip, members in TRIPS.items() if user in members}
    return Grant(user=user, rooms=rooms, expires_at=time.time() + 3600)


async def index(change: StoredChange) -> None:
    """Take a trip's notes into the search index, some time after they were edited."""
    doc = await sync.rooms.read(change.room)
    found_in[change.room.removeprefix("trip-")] = str(doc.get("text", type=Text))


sync = create_app(token_verifier=verify, on_stored=index)
app = FastAPI(lifespan=sync.lifespan)
app.add_middleware(SessionMiddleware, secret_key=SESSION_SECRET, max_age=SESSION_S)
app.mount("/sync", sync)
websockets = websocket_protocol(sync, "/sync")  # for uvicorn app:app --ws app:websockets


@app.post("/login")
async def login(request: Request, name: Annotated[str, Body()], password: Annotated[str, Body()]) -> dict[str, str]:
    """Begin a session."""
    if not secrets.compare_digest(PASSWORDS.get(name, "").encode(), password.encode()) or name not in PASSWORDS:
        raise HTTPException(403, "wrong name or password")
    request.session["user"] = name
    return {"user": name}


def signed_in(request: Request) -> str:
    """The user of the session."""
    user = request.session.get("user")
    if user is None:
        raise HTTPException(401, "sign in first")
    return str(user)


User = Annotated[str, Depends(signed_in)]


@app.post("/trips/{trip}/suggestions")
async def suggest(trip: str, user: User) -> dict[str, str]:
    """Write a suggestion into the notes, while people edit them."""
    if TRIPS.get(trip, {}).get(user, 0) < Right.WRITE:
        raise HTTPException(403, "you may not edit this trip")
    async with sync.rooms.edit(f"trip-{trip}", user="suggestions") as doc:
        text = doc.get("text", type=Text)
        text += "\nHave you been to the museum?"
    return {"suggested": "a museum"}


@app.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    """A WebSocket that has nothing to do with crdt-sync."""
    await socket.accept()
    await socket.send_text(await socket.receive_text())


@app.get("/search")
async def search(q: str, user: User) -> list[str]:
    """The user's trips that have this word in their notes."""
    return [trip for trip, members in TRIPS.items() if user in members and q in found_in.get(trip, "")]
