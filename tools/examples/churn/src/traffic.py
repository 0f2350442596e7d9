"""Asks the server for the customers of a month, and tells it later who left.

    python src/traffic.py 6                  # a month like those of the training
    python src/traffic.py 7 8 --repeat 3     # months with other prices

In a repository of your own, this is your application: it sends a `request_id`, and the labels when they come.
"""

import argparse
import sys
import time
import uuid

from customers import COLUMNS, LABEL, month

from penstock_client import Client

ROWS = 10


def main() -> None:
    """Sends the rows of each month, ten a request, then the labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("months", type=int, nargs="+", help="numbers of months, 1 for January 2026")
    parser.add_argument("--repeat", type=int, default=1, help="how often each is sent")
    parser.add_argument("--server", default="127.0.0.1:8001")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each month")
    options = parser.parse_args()
    with Client(options.server) as client:
        for number in options.months * options.repeat:
            frame = month(number)
            parts = [frame.iloc[first : first + ROWS] for first in range(0, len(frame), ROWS)]
            ids = [uuid.uuid4().hex for _ in parts]
            rows = (part[COLUMNS] for part in parts)
            versions: dict[str, int] = {}
            for answer in client.predict_many("churn", rows, request_ids=ids, routing_keys=ids):
                versions[answer.version] = versions.get(answer.version, 0) + ROWS
            client.feedback("churn", {key: part[LABEL].tolist() for key, part in zip(ids, parts, strict=True)})
            shares = ", ".join(f"version {version}: {count:,} rows" for version, count in sorted(versions.items()))
            sys.stdout.write(f"month {number}: {shares}\n")
            time.sleep(options.pause)


if __name__ == "__main__":
    main()
