import pytest

import penstock_tools
from penstock_tools.publish import pipeline


def test_publish_pipeline_is_exported():
    assert penstock_tools.publish_pipeline is pipeline.publish_pipeline
    with pytest.raises(AttributeError, match="module 'penstock_tools' has no attribute 'publish_pipe'"):
        _ = penstock_tools.publish_pipe
