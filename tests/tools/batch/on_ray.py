"""python -m tests.tools.batch.on_ray VERSION INPUT OUTPUT: a job on a cluster of Ray, one process of which is killed.

The cluster is one of this machine, in an environment that has Ray. It prints how many rows were answered and how many processes
were killed.
"""

import json
import logging
import os
import signal
import sys

import psutil
import ray

from penstock_tools.batch.run import Request, run


class DeadlyBars:
    """Bars that kill a process that scores once the first part is done."""

    def __init__(self) -> None:
        self.killed: list[int] = []

    def begin(self, text, total=None):
        return self._kill_one if text == "scoring" else lambda _done: None

    def _kill_one(self, done):
        if not done or self.killed:
            return
        # A process of Ray shows the class of its actor in its name.
        shown = {each: " ".join((each.name(), *each.cmdline())) for each in psutil.Process().children(recursive=True)}
        scoring = [each.pid for each, name in shown.items() if "ray::" in name and "MapWorker" in name]
        if scoring:
            os.kill(scoring[0], signal.SIGKILL)
            self.killed.append(scoring[0])


def main(version, rows, scores):
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    bars = DeadlyBars()
    try:
        request = Request(version, rows, scores, key=("id",), ray="auto", processes=2, part_rows=250)
        report = run(request, bars)
    finally:
        ray.shutdown()
    sys.stdout.write(json.dumps({"rows": report.rows, "killed": len(bars.killed)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
