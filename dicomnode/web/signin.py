"""Who asks: by session, by token, or, where the site has no users, whoever sits at this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from dicomnode.web.accounts import Role
from dicomnode.web.sessions import Visitor
from dicomnode.web.site import Here, Site, render

COOKIE = "dicomnode_session"
LIVE = "x-live"
"""Header of a request that a page makes by itself: nobody did something, so that the session does not last on."""

router = APIRouter(include_in_schema=False)


class SignInNeeded(Exception):
    """Nobody is signed in: a page leads to the sign-in, the API answers 401."""


def identify(request: Request, here: Here) -> Visitor | None:
    """Who asks; None: nobody who is known. Raises HTTPException 429 where a token was wrong too often."""
    address = request.client.host if request.client else ""
    if here.accounts is None:
        return Visitor("", Role.OPERATOR, address)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return _by_token(here, token, address)
    key, is_use = request.cookies.get(COOKIE, ""), LIVE not in request.headers
    name = here.sessions.name(key, here.clock(), is_use=is_use)
    account = here.accounts.find(name) if name else None
    return Visitor(account.name, account.role, address) if account else None


def _by_token(here: Site, token: str, address: str) -> Visitor | None:
    _wait_turn(here, address)
    account = here.accounts.bearer(token) if here.accounts else None
    if account is None:
        here.throttle.fail(address, here.clock())
        here.auditor.signed_in("unknown token", address, succeeded=False)
        return None
    return Visitor(account.name, account.role, address)


def _wait_turn(here: Site, *keys: str) -> None:
    wait_s = max(here.throttle.wait_s(key, here.clock()) for key in keys)
    if wait_s > 0:
        raise HTTPException(429, "too many failed sign-ins; try again later", {"Retry-After": str(int(wait_s) + 1)})


@dataclass(frozen=True)
class Needs:
    """A dependency: who asks, where the role is enough. Asked for the same role twice, a request is looked at once."""

    role: Role

    def __call__(self, request: Request, here: Here) -> Visitor:
        """Who asks. Raises SignInNeeded, or HTTPException 403."""
        visitor = identify(request, here)
        if visitor is None:
            raise SignInNeeded
        if not visitor.role.may(self.role):
            raise HTTPException(403, f"{visitor.name} is no {self.role}")
        request.state.visitor = visitor
        return visitor


Monitor = Annotated[Visitor, Depends(Needs(Role.MONITOR))]
"""Who asks, at least a monitor: sees counts, no patients."""
Viewer = Annotated[Visitor, Depends(Needs(Role.VIEWER))]
"""Who asks, at least a viewer: sees everything."""
Operator = Annotated[Visitor, Depends(Needs(Role.OPERATOR))]
"""Who asks, an operator: acts too."""


def _signature(operator: Operator, by: Annotated[str, Form(max_length=64)] = "") -> str:
    name = operator.name or " ".join(by.split())
    if not name:
        raise HTTPException(422, "give your name: it goes into the timeline")
    return name


Signature = Annotated[str, Depends(_signature)]
"""The name of the operator who sends a form."""


@router.get("/login")
def ask_who(request: Request, here: Here, to: str = "/") -> Response:
    """The form to sign in."""
    if here.accounts is None:
        return RedirectResponse("/", 303)
    return render(request, "login.html", None, to=_inside(to), problem="")


@router.post("/login")
def sign_in(
    request: Request, here: Here, name: Annotated[str, Form()], password: Annotated[str, Form()], to: str = "/"
) -> Response:
    """Sign in by name and password."""
    if here.accounts is None:
        return RedirectResponse("/", 303)
    address = request.client.host if request.client else ""
    keys = (address, f"user {name}")
    _wait_turn(here, *keys)
    account, now = here.accounts.check(name, password), here.clock()
    here.auditor.signed_in(name, address, succeeded=account is not None)
    if account is None:
        for key in keys:
            here.throttle.fail(key, now)
        problem = "Name or password is wrong."
        refusal = render(request, "login.html", None, to=_inside(to), problem=problem)
        refusal.status_code = 403
        return refusal
    for key in keys:
        here.throttle.succeed(key)
    answer = RedirectResponse(_inside(to), 303)
    key = here.sessions.open(account.name, now)
    answer.set_cookie(COOKIE, key, httponly=True, samesite="strict", secure=here.settings.web.is_https)
    return answer


@router.post("/logout")
def sign_out(request: Request, here: Here) -> Response:
    """End the session."""
    if name := here.sessions.close(request.cookies.get(COOKIE, "")):
        here.auditor.signed_out(name, request.client.host if request.client else "")
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


def login_path(request: Request) -> str:
    """Where to sign in, and then come back to."""
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return f"/login?to={quote(asked, safe='')}" if request.method == "GET" else "/login"


def _inside(to: str) -> str:
    """The path, where it is one of this site; nobody is led elsewhere."""
    is_path = to.startswith("/") and not to.startswith("//") and "\\" not in to and to.isprintable()
    return to if is_path else "/"
