"""Requests that follow no redirection: it would take a token, or the question itself, to a host that nobody named."""

import urllib.request
from typing import Any


class NoRedirection(urllib.request.HTTPRedirectHandler):
    """For `urllib.request.build_opener`: a redirection is an error with its status."""

    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        return None
