"""Trips, and who may edit them. Their notes are crdt-sync's."""

from django.conf import settings
from django.db import models


class Trip(models.Model):
    """A trip."""

    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="trips")
    found_by = models.TextField(default="")
    """The text of its notes, for searching."""
