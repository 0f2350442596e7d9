import pytest

from penstock import inference_pb2, names, penstock_pb2


@pytest.mark.parametrize(
    ("module", "service", "method"),
    [
        (inference_pb2, names.INFERENCE_SERVICE, names.INFER_METHOD),
        (penstock_pb2, names.CONTROL_SERVICE, names.DRIFT_STATE_METHOD),
    ],
)
def test_the_services_are_those_of_the_proto_files(module, service, method) -> None:
    (found,) = module.DESCRIPTOR.services_by_name.values()
    assert found.full_name == service
    assert method in found.methods_by_name
