"""A member of a group that answers by a toy, a process that tests kill: python member.py BROKERS TOPIC GROUP INSTANCE MOST."""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from penstock_server.log_setup import configure_logging
from penstock_server.rollout.plan import TrafficPlan
from penstock_tools.stream import kafka
from penstock_tools.stream.answering import Topics
from penstock_tools.stream.follower import Serving
from penstock_tools.stream.intake import Intake
from penstock_tools.stream.meter import Meter
from penstock_tools.stream.stream import Stream
from tests.tools.stream.broker import QUICK
from tests.tools.stream.toy import Toy


class NoShadows:
    def offer(self, *_):
        pass


def member(brokers, topic, group, instance, most, process="p", more=QUICK):
    """A stream of one member, and its input and output."""
    connection = kafka.Connection(brokers, group, instance, process, more)
    source = kafka.Input(connection.consumer("earliest"), topic)
    sink = kafka.Output(connection.producer(), instance)
    meter = Meter(
        lag=lambda: source.lag, transactions=lambda: (0, 0), rebalances=lambda: source.rebalances, topic=topic
    )
    serving = Serving(TrafficPlan("1"), {"1": Toy()})
    stream = Stream(
        "toy",
        Topics(topic, f"{topic}.out", f"{topic}.dead"),
        source,
        sink,
        lambda: serving,
        shadows=NoShadows(),
        meter=meter,
        intake=Intake(most, 1 << 20, 0.02),
        most_bytes=1 << 19,
    )
    return stream, source, sink, meter


if __name__ == "__main__":
    import os

    configure_logging("info", "json")
    brokers, topic, group, instance, most = sys.argv[1:]
    stream, source, sink, _ = member(brokers, topic, group, instance, int(most), process=str(os.getpid()))
    signal.signal(signal.SIGTERM, lambda *_: stream.stop())
    sink.open()
    source.open()
    print("joined", flush=True)
    stream.run()
    source.close()
