"""What a server knows of a model, as it answers it."""

import msgspec

from penstock_server.control.rollouts import RolloutView, shown
from penstock_server.rollout.evidence import Evidence
from penstock_server.rollout.experiment import ArmTotals, compared
from penstock_server.rollout.progress import HistoryEntry, Progress
from penstock_server.rollout.shares import all_or_none
from penstock_server.rollout.spec import RolloutSpec
from penstock_tools.rollout.fetch import Served

NAME = "fraud<b>"
PROGRESS = Progress(
    spec=RolloutSpec(gates={"errors": 1.5, "disagreement": 0.1, "value": 1.0}, shadow_s=60.0),
    champion="3", status="running", stage=2, began_s=0.0, since_s=60.0, reason="25 %: <script>",
)  # fmt: skip
EVIDENCE = Evidence(
    {"requests": {"5": (1000, 19000)}, "errors": {"5": (80, 95)}, "first_errors": {"5": (80, 95)}},
    shadow=(950, 50, 0),
    differing=all_or_none(950, 50),
)
ROLLOUT = shown(RolloutView(NAME, "4", PROGRESS, (HistoryEntry(0.0, "shadow: begun <i>"),), "here", evidence=EVIDENCE))
SLOW = {"p50": 500, "p95": 50, "p99": 10}
EXPERIMENT = msgspec.to_builtins(
    compared(
        NAME,
        "3",
        {"3": 0.7, "4": 0.2, "5": 0.1},
        {
            "3": ArmTotals(7000, 70, 7000, SLOW, 900, 90, (500.0, 500.0, 1000.0)),
            "4": ArmTotals(2000, 60, 2000, SLOW, 257, 26, (500.0, 900.0, 2500.0)),
            "5": ArmTotals(1000),
        },
        3600.0,
    )
)
MISMATCHED = msgspec.to_builtins(
    compared(NAME, "3", {"3": 0.5, "4": 0.5}, {"3": ArmTotals(5000), "4": ArmTotals(9)}, 0.0)
)
BOTH = Served(NAME, ROLLOUT, EXPERIMENT)
