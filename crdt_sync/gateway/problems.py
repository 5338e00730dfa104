"""Errors of the HTTP API as RFC 9457 problems."""

from starlette.responses import JSONResponse

from ..errors import SyncError, Unauthorized

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that can't be answered as asked.

    Args:
        status: HTTP status.
        title: What kind of problem it is; the same for all of a kind.
        detail: What to do about this one.
        headers: More headers for the answer.
    """

    def __init__(self, status: int, title: str, detail: str | None = None, *, headers: dict[str, str] | None = None):
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers

    def response(self) -> JSONResponse:
        """The answer."""
        body = {"type": f"urn:crdt-sync:{self.title.replace(' ', '-')}", "title": self.title, "status": self.status}
        if self.detail is not None:
            body["detail"] = self.detail
        return JSONResponse(body, status_code=self.status, media_type=MEDIA_TYPE, headers=self.headers)


def problem_of(error: SyncError) -> Problem:
    """What a client of the API is told about an error of the server. Its text is for the log."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.status == Unauthorized.status:
        headers["www-authenticate"] = "Bearer"
    return Problem(error.status, error.reason, headers=headers)
