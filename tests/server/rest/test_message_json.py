from penstock import inference_pb2 as pb
from penstock_server.rest.message_json import json_of_message, setting_of


def test_every_field_is_there_and_numbers_are_numbers() -> None:
    config = pb.ModelConfig(name="m", input=[pb.ModelInput(name="x", data_type="TYPE_FP32", dims=[-1, 2**40])])
    config.version_policy.latest.num_versions = 2
    found = json_of_message(config)
    assert found["input"][0] | {"optional": False} == found["input"][0]
    assert (found["input"][0]["data_type"], found["input"][0]["dims"]) == ("TYPE_FP32", [-1, 2**40])
    assert found["version_policy"] == {"latest": {"num_versions": 2}}
    assert (found["max_batch_size"], found["output"]) == (0, [])
    assert "dynamic_batching" not in found  # a message that is not set


def test_a_map_is_an_object_and_a_setting_is_its_value() -> None:
    reply = pb.TraceSettingResponse()
    reply.settings["b"].value.extend(["1", "2"])
    reply.settings["a"].value.append("x")
    assert json_of_message(reply) == {"settings": {"a": {"value": ["x"]}, "b": {"value": ["1", "2"]}}}
    assert setting_of(reply.settings["b"]) == ["1", "2"]
    log = pb.LogSettingsResponse.SettingValue(uint32_param=3)
    assert (setting_of(log), setting_of(pb.LogSettingsResponse.SettingValue())) == (3, None)
