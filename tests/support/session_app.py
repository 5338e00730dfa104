"""The server in an application with a login of its own, for `uvicorn tests.support.session_app:app`."""

import asyncio
import time

from auth import CredentialInvalid, CredentialMissing, Credentials, Grant, Right
from crdt_sync import Settings, create_app

TRIPS = {"ann": {"trip-1": Right.WRITE}, "bob": {"trip-1": Right.READ}}


async def verify(credentials: Credentials) -> Grant:
    """Whoever has a cookie `user=` is that user; some break what asks for them."""
    name, _, user = credentials.headers.get("cookie", "").partition("=")
    if name != "user":
        raise CredentialMissing("no session cookie")
    if user == "slow":
        await asyncio.sleep(60)
    if user == "bug":
        raise RuntimeError(f"asked for {credentials.room}")
    if user == "nothing":
        return None  # type: ignore[return-value]
    if user == "nobody":
        return Grant(user=None, rooms={"trip-1": Right.WRITE})
    if user == "number":
        return Grant(user=42, rooms={"trip-1": Right.WRITE})  # type: ignore[arg-type]
    if user not in TRIPS:
        raise CredentialInvalid("nobody of that name")
    return Grant(user=user, rooms=TRIPS[user], expires_at=time.time() + 3600)


app = create_app(
    Settings.read(database_url="memory://", grant_timeout_s=1, jwt_leeway_s=0),
    token_verifier=verify,
)
