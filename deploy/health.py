"""Whether the node of this container can do its work: asks its web interface, by the settings that the node runs with.

Exit code 1, with the reason, where it cannot. A healthy node says nothing.
"""

from __future__ import annotations

import ssl
import sys
import urllib.request

from dicomnode.errors import Misconfigured
from dicomnode.settings import load

TIMEOUT_S = 10


def main() -> str | None:
    """What is wrong, if anything is."""
    try:
        web = load()[0].web
        # The certificate is made for the names that people call the node by, not for the loopback interface.
        context = ssl._create_unverified_context() if web.tls else None
        address = f"{'https' if web.tls else 'http'}://localhost:{web.port}/health"
        with urllib.request.urlopen(address, timeout=TIMEOUT_S, context=context):
            return None
    except (Misconfigured, OSError) as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main())
