"""Where `publish_pipeline` was in version 0.1: import it from `penstock_tools`."""

import warnings

from penstock_tools.publish.pipeline import publish_pipeline

__all__ = ["publish_pipeline"]

warnings.warn(
    "penstock_tools.pipelines.publishing has moved; use: from penstock_tools import publish_pipeline",
    DeprecationWarning,
    stacklevel=2,
)
