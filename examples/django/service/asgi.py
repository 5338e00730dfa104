"""The service: Django, and crdt-sync below /sync/. Django runs no lifespans, so Starlette, which crdt-sync brings, does."""

import os

from django.core.asgi import get_asgi_application
from starlette.applications import Starlette
from starlette.routing import Mount

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "service.settings")
django = get_asgi_application()

from trips.live import sync  # noqa: E402 - it imports models, which Django has to be ready for

application = Starlette(routes=[Mount("/sync", sync), Mount("/", django)], lifespan=sync.lifespan)
