"""What Django answers."""

import json

from asgiref.sync import async_to_sync
from django.contrib.auth import authenticate, login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import ensure_csrf_cookie
from pycrdt import Text

from .live import sync
from .models import Trip


@ensure_csrf_cookie
def sign_in(request: HttpRequest) -> HttpResponse:
    """Begin a session."""
    if request.method != "POST":
        return HttpResponse(status=204)
    shown = json.loads(request.body)
    user = authenticate(request, username=shown["name"], password=shown["password"])
    if user is None:
        return JsonResponse({"problem": "wrong name or password"}, status=403)
    login(request, user)
    return JsonResponse({"user": user.get_username()})


async def suggest(request: HttpRequest, trip: int) -> HttpResponse:
    """Write a suggestion into the notes, while people edit them."""
    user = await request.auser()
    if not await Trip.objects.filter(pk=trip, members=user.pk).aexists():
        return JsonResponse({"problem": "you may not edit this trip"}, status=403)
    async with sync.rooms.edit(f"trip-{trip}", user="suggestions") as doc:
        text = doc.get("text", type=Text)
        text += "\nHave you been to the museum?"
    return JsonResponse({"suggested": "a museum"})


def write_title(request: HttpRequest, trip: int) -> HttpResponse:
    """Write a title above the notes, from a view that isn't async."""
    if not Trip.objects.filter(pk=trip, members=request.user.pk).exists():
        return JsonResponse({"problem": "you may not edit this trip"}, status=403)
    async_to_sync(_write_title)(f"trip-{trip}", str(request.user.pk), json.loads(request.body)["title"])
    return HttpResponse(status=204)


async def _write_title(room: str, user: str, title: str) -> None:
    async with sync.rooms.edit(room, user=user) as doc:
        doc.get("text", type=Text).insert(0, f"{title}\n")


async def search(request: HttpRequest) -> HttpResponse:
    """The user's trips that have this word in their notes."""
    user = await request.auser()
    trips = Trip.objects.filter(members=user.pk, found_by__contains=request.GET["q"])
    return JsonResponse([trip.pk async for trip in trips], safe=False)
