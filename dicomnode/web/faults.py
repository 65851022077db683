"""What an error looks like: a page for people, `application/problem+json` (RFC 9457) for programs."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException

from dicomnode.errors import Refused, Unavailable
from dicomnode.lifecycle import IllegalMove
from dicomnode.store import Unknown
from dicomnode.web.security import HEADERS
from dicomnode.web.signin import SignInNeeded, login_path
from dicomnode.web.site import render

_STATUS: dict[type[Exception], int] = {Unknown: 404, IllegalMove: 409, Refused: 409, Unavailable: 503}
_FOR_PROGRAMS = ("/api/", "/metrics", "/health", "/dicom-web/")


def add_faults(app: FastAPI) -> None:
    """Teach the application what to answer to the errors of the node."""
    for error in _STATUS:
        app.add_exception_handler(error, _answer_own)
    app.add_exception_handler(SignInNeeded, _ask_to_sign_in)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(500, _answer_unexpected)


def tell(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """The page or the JSON of an error."""
    if request.url.path.startswith(_FOR_PROGRAMS):
        problem = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
        return JSONResponse(problem, status, headers, media_type="application/problem+json")
    visitor = getattr(request.state, "visitor", None)
    answer = render(request, "error.html", visitor, title=HTTPStatus(status).phrase, detail=detail)
    answer.status_code = status
    answer.headers.update(headers or {})
    return answer


def _answer_own(request: Request, error: Exception) -> Response:
    return tell(request, next(status for kind, status in _STATUS.items() if isinstance(error, kind)), str(error))


def _ask_to_sign_in(request: Request, _: Exception) -> Response:
    if request.url.path.startswith(_FOR_PROGRAMS):
        return tell(request, 401, "sign in by a bearer token", {"WWW-Authenticate": "Bearer"})
    return RedirectResponse(login_path(request), 303)


def _answer_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers) if error.headers else None
    return tell(request, error.status_code, str(error.detail), headers)


def _answer_invalid(request: Request, error: Exception) -> Response:
    """Says which field, and nothing of what was in it."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    lines = [f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in problems]
    return tell(request, 422, "; ".join(lines))


def _answer_unexpected(request: Request, _: Exception) -> Response:
    # Made outside of all middleware, so that nobody else adds them.
    return tell(request, 500, "an internal error; the log says where", {**HEADERS, "Cache-Control": "no-store"})
