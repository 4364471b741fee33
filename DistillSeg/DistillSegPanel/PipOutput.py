"""What pip prints, and the class of cause that it shows when it fails."""

import io

# Signs in pip's output, in lower case. The first class that matches counts.
CAUSES = (
    ("proxy", ("proxyerror", "407 proxy", "tunnel connection failed", "cannot connect to proxy")),
    ("certificate", ("certificate_verify_failed", "sslerror", "ssl: certificate")),
    ("disk", ("no space left", "errno 28", "disk full", "not enough space", "errno 122")),
    ("permission", ("permission denied", "errno 13", "access is denied", "winerror 5", "errno 30")),
    (
        "network",
        (
            "newconnectionerror",
            "max retries exceeded",
            "temporary failure in name resolution",
            "getaddrinfo failed",
            "name or service not known",
            "network is unreachable",
            "timed out",
            "connection reset",
            "connection refused",
        ),
    ),
    ("wheel", ("no matching distribution", "could not find a version", "is not a supported wheel")),
)


def causeOf(text):
    """The class of cause that pip's output shows; "other" if none is known."""
    folded = text.lower()
    for cause, signs in CAUSES:
        if any(sign in folded for sign in signs):
            return cause
    return "other"


class Listener(io.TextIOBase):
    """Passes on what is printed and keeps it: Slicer prints what pip says, and raises less."""

    def __init__(self, stream):
        super().__init__()
        self._stream = stream
        self._parts = []

    def write(self, text):
        self._parts.append(text)
        if self._stream is not None:
            self._stream.write(text)
        return len(text)

    def text(self):
        """The end of what was printed."""
        return "".join(self._parts)[-20000:]
