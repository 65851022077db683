"""The file of users and tokens: a line for each, of which no password and no token can be read."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
import threading
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dicomnode.errors import Misconfigured

log = logging.getLogger(__name__)

_FORBIDDEN_MODE = 0o027  # nobody but its owner writes it, nobody but owner and group reads it
_COST = (1 << 15, 8, 3)  # n, r, p of scrypt: 32 MB and a tenth of a second or two
_MOST_MEMORY = 64 << 20
_PASSWORD, _TOKEN = "scrypt", "token"


class Role(StrEnum):
    """What somebody may do: each may also do what those before it may. A sender may store images and see nothing."""

    MONITOR = "monitor"
    VIEWER = "viewer"
    OPERATOR = "operator"
    SENDER = "sender"

    def may(self, needed: Role) -> bool:
        """Whether this role is enough."""
        if Role.SENDER in (self, needed):
            return self in (needed, Role.OPERATOR)
        return list(Role).index(self) >= list(Role).index(needed)


@dataclass(frozen=True)
class Account:
    """A line of the file. kind: how `secret` was made of a password, or of a token."""

    name: str
    role: Role
    kind: str
    secret: str


class Accounts:
    """The users of a site, from its file, which may change while the node runs."""

    def __init__(self, file: Path) -> None:
        """Raises Misconfigured where the file cannot be used."""
        self._file = file
        self._seen = _stamp(file)
        self._accounts = read_accounts(file)
        self._turn = threading.Lock()  # scrypt asks for memory

    def find(self, name: str) -> Account | None:
        """The account of a user who signs in by password."""
        return next((one for one in self._current() if one.name == name and one.kind == _PASSWORD), None)

    def check(self, name: str, password: str) -> Account | None:
        """The account, where the password is its; as slow where there is no such user."""
        account = self.find(name)
        with self._turn:
            is_right = _is_password(password, account.secret if account else _NOBODY)
        return account if account and is_right else None

    def bearer(self, token: str) -> Account | None:
        """The account of a token."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        tokens = [one for one in self._current() if one.kind == _TOKEN]
        return next((one for one in tokens if hmac.compare_digest(one.secret, digest)), None)

    def _current(self) -> list[Account]:
        try:
            stamp = _stamp(self._file)
            if stamp != self._seen:
                self._seen = stamp
                self._accounts = read_accounts(self._file)
        except Misconfigured as error:
            log.error("%s; what it said before holds on", error)
        return self._accounts


def read_accounts(file: Path) -> list[Account]:
    """Every line of the file that is neither empty nor a comment. Raises Misconfigured, naming the line."""
    try:
        mode = file.stat().st_mode
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"web.users: {file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    if mode & _FORBIDDEN_MODE:
        raise Misconfigured(f"web.users: {file}: has mode {mode & 0o777:o}, so that others may use it; chmod 600")
    accounts = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            try:
                accounts.append(_parse(line.strip()))
            except ValueError as error:
                raise Misconfigured(f"web.users: {file}: line {number}: {error}") from None
    return accounts


def password_line(name: str, role: Role, password: str) -> str:
    """The line of a user. Raises ValueError: the name or the password cannot be one."""
    if len(password) < 12:
        raise ValueError("a password has at least 12 characters")
    salt = secrets.token_bytes(16)
    n, r, p = _COST
    secret = ":".join([str(n), str(r), str(p), _encode(salt), _encode(_scrypt(password, salt, _COST))])
    return f"{_checked(name)}:{role}:{_PASSWORD}:{secret}"


def token_line(name: str, role: Role) -> tuple[str, str]:
    """A new token, which is nowhere else, and the line of its owner. Raises ValueError."""
    token = secrets.token_urlsafe(32)
    return token, f"{_checked(name)}:{role}:{_TOKEN}:{hashlib.sha256(token.encode()).hexdigest()}"


def _parse(line: str) -> Account:
    name, role, kind, secret = [*line.split(":", 3), "", "", ""][:4]
    if role not in set(Role):
        raise ValueError(f"the role is one of {', '.join(Role)}")
    if kind == _PASSWORD:
        _is_password("", secret, is_trial=True)
    elif kind != _TOKEN or len(secret) != 64:
        raise ValueError("it is not one that `dicomnode web-user` made")
    return Account(_checked(name), Role(role), kind, secret)


def _checked(name: str) -> str:
    if not 1 <= len(name) <= 64 or ":" in name or not name.isprintable() or name != name.strip():
        raise ValueError("a name has 1 to 64 printable characters without a colon")
    return name


def _is_password(password: str, secret: str, *, is_trial: bool = False) -> bool:
    """Whether it is the password. is_trial: only whether the secret can be read. Raises ValueError."""
    try:
        n, r, p, salt, key = secret.split(":")
        cost, expected = (int(n), int(r), int(p)), base64.b64decode(key, validate=True)
        salted = base64.b64decode(salt, validate=True)
    except ValueError:
        raise ValueError("it is not one that `dicomnode web-user` made") from None
    return not is_trial and hmac.compare_digest(expected, _scrypt(password, salted, cost))


def _scrypt(password: str, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    n, r, p = cost
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MOST_MEMORY)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _stamp(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise Misconfigured(f"web.users: {file}: {error.strerror}") from None
    return found.st_mtime_ns, found.st_size


_NOBODY = ":".join([*(str(number) for number in _COST), _encode(bytes(16)), _encode(bytes(64))])
