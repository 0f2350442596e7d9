import subprocess
import sys

import pytest

import penstock_tools
from penstock_tools.publish import pipeline


def test_publish_pipeline_is_exported():
    assert penstock_tools.publish_pipeline is pipeline.publish_pipeline
    with pytest.raises(AttributeError, match="module 'penstock_tools' has no attribute 'publish_pipe'"):
        _ = penstock_tools.publish_pipe


def test_the_package_alone_imports_nothing_heavy():
    code = "import sys, penstock_tools; print({'numpy', 'sklearn', 'mlflow', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
