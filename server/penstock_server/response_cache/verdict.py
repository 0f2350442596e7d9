"""Decides whether a version's answers are kept: by the settings, by its `config.pbtxt`, and only if it answers alike each time.

The airlock tells operators what this says, and each worker does it.
"""

from typing import NamedTuple

from penstock_server.models.servable import Servable
from penstock_server.response_cache.settings import Caching


class CachingVerdict(NamedTuple):
    """Whether answers are kept, and what operators need to know of it; "" for nothing."""

    is_on: bool
    note: str = ""


def caching_verdict(servable: Servable, caching: Caching) -> CachingVerdict:
    """Whether the answers of a version are kept.

    Args:
        servable: the version.
        caching: what the settings say of its model.
    """
    declared = None if servable.artifact.config is None else servable.artifact.config.caches_responses
    if not caching.wants(declared):
        said = (
            "config.pbtxt has no effect with response_cache: the settings have response_cache.models.{}.enable = false"
        )
        return CachingVerdict(False, said.format(servable.key[0]) if declared else "")
    if not caching.has_memory:
        said = "config.pbtxt has no effect with response_cache: the setting response_cache.max_mib has no memory for answers"
        return CachingVerdict(False, said)
    if servable.varies:
        return CachingVerdict(False, f"its answers are not kept in the response cache: {servable.varies}")
    return CachingVerdict(True)
