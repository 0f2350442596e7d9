import http.client

import pytest

from bench import inference, models
from bench.load import generator
from bench.load.plan import LoadPlan
from bench.protocols import JSON
from bench.servers.measured import SERVERS, running


@pytest.mark.long
@pytest.mark.slow
def test_fastapi_answers_what_the_model_says_under_load(tmp_path) -> None:
    files = models.write(tmp_path, {"mlp"})
    sent = JSON.messages("mlp", rows=1, copies=1)
    with running(SERVERS["fastapi"].command(tmp_path, files), protocol=JSON) as server:
        outputs = inference.expected(files["mlp"], "mlp", rows=1)
        JSON.check(server.http, sent, outputs, 60)
        wrong = [{"scores": each["scores"] + 1} for each in outputs]
        with pytest.raises(inference.WrongAnswerError, match="'scores' differs"):
            JSON.check(server.http, sent, wrong, 60)
        plan = LoadPlan(server.http, inference.METHOD, sent, connections=2, streams=2, max_requests=40, duration_s=30)
        result = generator.run(JSON.adapt(plan))
        assert (result.succeeded, result.failures) == (40, {})
        connection = http.client.HTTPConnection(server.http, timeout=10)
        connection.request("POST", "/infer", b'{"model": "other", "rows": []}', {"content-type": "application/json"})
        assert connection.getresponse().status == 404
        connection.close()
