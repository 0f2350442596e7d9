"""The `penstock` command, and for programs `publish_pipeline`, which publishes a fitted scikit-learn pipeline.

from penstock_tools import publish_pipeline

publish_pipeline("fraud", fitted_pipeline, sample_frame, labels, alias="champion")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock_tools.publish.pipeline import publish_pipeline

__all__ = ["publish_pipeline"]


def __getattr__(name: str) -> Any:
    # scikit-learn, onnxruntime and mlflow take seconds to import, and no other command should wait for them.
    if name == "publish_pipeline":
        from penstock_tools.publish.pipeline import publish_pipeline

        return publish_pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
