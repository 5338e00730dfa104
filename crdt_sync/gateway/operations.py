"""All that can be asked of the HTTP API."""

from . import api, past_api, verify_api

OPERATIONS = (*api.OPERATIONS, *past_api.OPERATIONS, *verify_api.OPERATIONS)
