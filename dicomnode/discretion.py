"""What of an error may be logged: its kind and where it arose, never its text, which may quote a patient's data."""

from __future__ import annotations

import logging
import threading
import traceback
from types import TracebackType

log = logging.getLogger(__name__)

_Caught = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
_TOLD_BY_US = ("dul", "fsm", "dimse", "transport", "service_class", "service_class_n", "events")
# httpx tells each request with its query, and a query may hold a PatientID.
_CHATTY = (
    "fontTools",
    "pynetdicom",
    "alembic",
    "pydicom",
    "highdicom",
    "matplotlib",
    "httpx",
    "httpcore",
    "python_multipart",
)


def scrub(error: BaseException) -> str:
    """The kind of an error and the last places that it passed."""
    places = [
        f"{frame.name} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    return f"{type(error).__name__} in {' > '.join(places[-4:])}"


class DiscreetFormatter(logging.Formatter):
    """One line for each record; of an exception what `scrub` leaves."""

    def formatException(self, ei: _Caught) -> str:  # noqa: N802 - the name is logging's
        """In the place of a traceback."""
        return scrub(ei[1]) if ei[1] else ""


def set_up_logging() -> None:
    """Log to stderr from INFO, of the libraries what matters here, and of no thread the text of what ended it."""
    handler = logging.StreamHandler()
    handler.setFormatter(DiscreetFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.ERROR)
    for told_by_us in _TOLD_BY_US:  # traces of what peers do wrong, which the listener records, and texts of errors
        logging.getLogger(f"pynetdicom.{told_by_us}").setLevel(logging.CRITICAL)
    threading.excepthook = _log_end_of_thread


def _log_end_of_thread(end: threading.ExceptHookArgs) -> None:
    if end.exc_value:
        log.error("a thread ended: %s", scrub(end.exc_value))
