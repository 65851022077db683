"""E-mail: a message by SMTP, with TLS from the start or by STARTTLS (RFC 5321, RFC 3207)."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime

from dicomnode.errors import Unavailable
from dicomnode.notices import Message
from dicomnode.notification_settings import MailSettings


@dataclass(frozen=True)
class Mailbox:
    """To whom, and by which server. password: empty without a login. security: None for plain SMTP."""

    server: MailSettings
    recipients: tuple[str, ...]
    password: str
    security: ssl.SSLContext | None
    timeout_s: float

    def tell(self, message: Message, now: datetime) -> str:
        """Hand a message to the server, which must take a recipient at least; what it said. Raises Unavailable."""
        try:
            with self._connect() as smtp:
                if self.server.user:
                    smtp.login(self.server.user, self.password)
                refused = smtp.send_message(self._write(message, now), self.server.sender, self.recipients)
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or "protocol error"
            raise Unavailable(f"the mail server: TLS: {reason}") from None
        except smtplib.SMTPResponseException as error:
            raise Unavailable(f"the mail server answered {error.smtp_code}") from None
        except (smtplib.SMTPException, OSError) as error:
            raise Unavailable(f"the mail server: {getattr(error, 'strerror', None) or type(error).__name__}") from None
        # Those who were taken have the message: to send it again would double it.
        return f"the mail server refused {len(refused)} of {len(self.recipients)} recipients" if refused else "sent"

    def _connect(self) -> smtplib.SMTP:
        host, port = self.server.host, self.server.port
        if self.server.security == "tls":
            return smtplib.SMTP_SSL(host, port, timeout=self.timeout_s, context=self.security)
        smtp = smtplib.SMTP(host, port, timeout=self.timeout_s)
        if self.server.security == "starttls":
            try:
                smtp.starttls(context=self.security)
            except (OSError, smtplib.SMTPException):
                smtp.close()
                raise
        return smtp

    def _write(self, message: Message, now: datetime) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = self.server.sender
        mail["To"] = ", ".join(self.recipients)
        mail["Subject"] = message.subject
        mail["Date"] = format_datetime(now)
        mail["Message-ID"] = f"<{message.key}@{self.server.sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
        mail.set_content(message.text)
        return mail
