"""The HTTP session of the SDK's exporter, which answers where nobody else does.

An exception of urllib3's refers to itself by its frames, and these to what was sent. The exporter keeps one while it
waits to try again, long enough to become old; and garbage that is old when policies are reloaded may stay for ever
(`policy_sources.pacing`). Measured: half a megabyte for each batch that a dead collector did not take.
"""

from __future__ import annotations

from typing import Any

import requests

NOBODY = 503
"""The status of an answer that did not come: the exporter tries again, as it does after an exception."""


class Session(requests.Session):
    """As its base, but what could not be sent is answered with status `NOBODY`, and why as its reason."""

    def request(self, *arguments: Any, **named: Any) -> requests.Response:
        """As the base's; once more where a connection that was kept turned out to be closed, as the exporter does."""
        try:
            return super().request(*arguments, **named)
        except requests.Timeout as error:
            return _nobody(error)
        except requests.ConnectionError:
            pass
        except requests.RequestException as error:
            return _nobody(error)
        try:
            return super().request(*arguments, **named)
        except requests.RequestException as error:
            return _nobody(error)


def _nobody(error: Exception) -> requests.Response:
    """Nothing of the error's text: it may quote what was sent."""
    answer = requests.Response()
    answer.status_code = NOBODY
    answer.reason = type(error).__name__
    return answer
