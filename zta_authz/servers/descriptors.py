"""Raise the limit of open files to fit the configured number of connections.

Otherwise connections could use up the process's file descriptors before the server reaches its own limit, and policies,
keys and the decision log would have none left.
"""

from __future__ import annotations

import logging
import resource
from typing import Final

_LOG = logging.getLogger(__name__)
_FOR_THE_SERVICE: Final = 256
"""Descriptors for everything except connections; a generous estimate."""
_SERVERS: Final = 2
"""One for plain listeners, one for mutual TLS."""


def raise_descriptor_limit(connections: int) -> None:
    """Raise the soft limit so that each server can hold `connections`; log a warning if the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FOR_THE_SERVICE + _SERVERS * connections
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    granted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, granted), hard))
    if granted < needed:
        _LOG.warning(
            "the process may open %d files, and its connections may need %d: raise the limit, or lower "
            "`http2.max_connections`",
            granted,
            needed,
        )
