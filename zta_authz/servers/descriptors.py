"""Room for file descriptors.

A server that may keep more connections than its process may open files would take them from the rest of the service
(policies, keys, the decision log) before it reached a limit of its own.
"""

from __future__ import annotations

import logging
import resource
from typing import Final

_LOG = logging.getLogger(__name__)
_FOR_THE_REST: Final = 256
"""What the service itself needs, generously."""
_SERVERS: Final = 2
"""One for plain listeners, one for mutual TLS."""


def want_descriptors(connections: int) -> None:
    """Raise the process's soft limit so that each server has `connections`; say so where the hard limit forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FOR_THE_REST + _SERVERS * connections
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    if most < wanted:
        _LOG.warning(
            "the process may open %d files, and its connections may need %d: raise the limit, or lower "
            "`http2.max_connections`",
            most,
            wanted,
        )
