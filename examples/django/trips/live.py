"""crdt-sync in this service: who may edit which notes, and what happens when they were edited."""

import time
from importlib import import_module

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest
from django.http.cookie import parse_cookie
from pycrdt import Text

from auth import CredentialInvalid, Credentials, Grant, Right
from crdt_sync import StoredChange, create_app

from .models import Trip

SessionStore = import_module(settings.SESSION_ENGINE).SessionStore


@sync_to_async
def granted(session_key: str | None) -> Grant:
    """What the user of a session may do."""
    request = HttpRequest()
    request.session = SessionStore(session_key)
    user = get_user(request)  # also checks that the password is the one of that session
    if not user.is_authenticated:
        raise CredentialInvalid("not a session of somebody who signed in")
    rooms = {f"trip-{trip.pk}": Right.WRITE for trip in user.trips.all()}
    return Grant(user=str(user.pk), name=user.get_full_name()[:100], rooms=rooms, expires_at=time.time() + 3600)


async def verify(credentials: Credentials) -> Grant:
    """Say what a client may do, by the session cookie that its browser sends along."""
    cookies = parse_cookie(credentials.headers.get("cookie", ""))
    return await granted(cookies.get(settings.SESSION_COOKIE_NAME))


async def index(change: StoredChange) -> None:
    """Make a trip's notes findable, some time after they were edited."""
    doc = await sync.rooms.read(change.room)
    trip = change.room.removeprefix("trip-")
    await Trip.objects.filter(pk=trip).aupdate(found_by=str(doc.get("text", type=Text)))


sync = create_app(token_verifier=verify, on_stored=index)
