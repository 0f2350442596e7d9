import numpy as np
import pytest

from bench import client, strings
from penstock.tensors import from_raw


def test_all_callers_ask_for_the_same_row():
    for request in client.REQUESTS.values():
        asked = request()
        message = asked.message()
        sent = {
            tensor.name: from_raw(raw, tensor.datatype, tensor.shape)
            for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)
        }
        assert message.model_name == asked.model
        if isinstance(asked.rows, dict):
            assert list(sent) == list(asked.rows) == [*strings.NUMBERS, *strings.STRINGS]
            for name, value in asked.rows.items():
                expected = value.encode() if isinstance(value, str) else np.float32(value)
                assert sent[name].tolist() == [expected] or value != value
        else:
            assert np.array_equal(sent["input"], asked.rows)


def test_the_table_compares_with_the_bare_stub_and_tritonclient():
    lines = client.table_of({client.BARE: (200e-6, 4e-4), client.TRITON: (250e-6, 4e-4), "x": (100e-6, 3e-4)}).split(
        "\n"
    )
    assert [line.split()[-4:] for line in lines[1:]] == [
        ["200", "400", "1.00", "0.80"],
        ["250", "400", "1.25", "1.00"],
        ["100", "300", "0.50", "0.40"],
    ]


@pytest.mark.slow
@pytest.mark.long  # each way to call, against a server, in processes of its own
def test_every_caller_is_measured(capsys):
    assert client.main(["--turns", "1", "--calls", "3"]) == 0
    printed = capsys.readouterr().out
    for name in (*client.CALLERS, *client.REQUESTS):
        assert name in printed
