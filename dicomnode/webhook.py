"""Webhooks: a message by HTTP POST, signed as Standard Webhooks says (standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from dicomnode.errors import Unavailable
from dicomnode.notices import Message

_PREFIX = b"whsec_"


@dataclass(frozen=True)
class Webhook:
    """Where and how to post. secret: signs each message; empty: unsigned. security: None for plain HTTP."""

    url: str
    secret: bytes
    security: ssl.SSLContext | None
    timeout_s: float

    def tell(self, message: Message, now: datetime) -> str:
        """Post a message; an answer of 2xx takes it, no redirect is followed; what it was. Raises Unavailable."""
        parts = urlsplit(self.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        body = _encode(message)
        connection = self._connect(parts.hostname or "", parts.port)
        try:
            connection.request("POST", path, body, self._head(message.key, body, now))
            status = connection.getresponse().status
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or "protocol error"
            raise Unavailable(f"the webhook's server: TLS: {reason}") from None
        except (OSError, HTTPException) as error:
            raise Unavailable(f"the webhook's server: {_kind(error)}") from None
        finally:
            connection.close()
        if not 200 <= status < 300:
            raise Unavailable(f"the webhook's server answered {status}")
        return f"answered {status}"

    def _connect(self, host: str, port: int | None) -> HTTPConnection:
        if self.security is None:
            return HTTPConnection(host, port, timeout=self.timeout_s)
        return HTTPSConnection(host, port, timeout=self.timeout_s, context=self.security)

    def _head(self, key: str, body: bytes, now: datetime) -> dict[str, str]:
        stamp = str(int(now.timestamp()))
        head = {"Content-Type": "application/json", "webhook-id": key, "webhook-timestamp": stamp}
        if self.secret:
            signed = b".".join((key.encode(), stamp.encode(), body))
            digest = hmac.new(_key(self.secret), signed, hashlib.sha256).digest()
            head["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return head


def _key(secret: bytes) -> bytes:
    """`whsec_` and Base64, as senders and libraries exchange it, or the bytes as they are."""
    if not secret.startswith(_PREFIX):
        return secret
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        return secret


def _encode(message: Message) -> bytes:
    fields = {name: value for name, value in message.fields.items() if value}
    content = {"type": fields.pop("event"), "timestamp": fields.pop("at"), "text": message.text, "data": fields}
    return json.dumps(content, ensure_ascii=False).encode()


def _kind(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
