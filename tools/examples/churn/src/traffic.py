"""Asks the server for the customers of a month, and tells it later who left.

    python src/traffic.py 6                  # a month like those of the training
    python src/traffic.py 7 8 --repeat 3     # months with other prices

In a repository of your own, this is your application: it sends a `request_id`, and the labels when they come.
"""

import argparse
import sys
import time
import uuid
from collections import Counter

import pandas as pd
from customers import COLUMNS, LABEL, month

from penstock_client import Client

ROWS = 10
REQUESTS = 20
"""So many requests are answered before their labels are sent, and the next ones."""


def main() -> None:
    """Sends the rows of each month, ten a request, and the labels soon after them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("months", type=int, nargs="+", help="numbers of months, 1 for January 2026")
    parser.add_argument("--repeat", type=int, default=1, help="how often all of them are sent")
    parser.add_argument("--server", default="127.0.0.1:8001")
    # Drift is looked at every few seconds: a quarter of customers within one would be one look.
    parser.add_argument("--seconds", type=float, default=20.0, help="about how long a month takes")
    options = parser.parse_args()
    with Client(options.server) as client:
        for number in options.months * options.repeat:
            frame = month(number)
            parts = range(0, len(frame), ROWS * REQUESTS)
            versions: Counter[str] = Counter()
            for first in parts:
                versions.update(answered(client, frame.iloc[first : first + ROWS * REQUESTS]))
                time.sleep(options.seconds / len(parts))
            shares = ", ".join(f"version {version}: {count:,} rows" for version, count in sorted(versions.items()))
            sys.stdout.write(f"month {number}: {shares}\n")
            sys.stdout.flush()


def answered(client: Client, frame: pd.DataFrame) -> Counter[str]:
    """Has these rows answered, and says who left; gives how many rows each version answered."""
    requests = [frame.iloc[first : first + ROWS] for first in range(0, len(frame), ROWS)]
    ids = [uuid.uuid4().hex for _ in requests]
    answers = client.predict_many("churn", (rows[COLUMNS] for rows in requests), request_ids=ids, routing_keys=ids)
    versions: Counter[str] = Counter()
    for answer, rows in zip(answers, requests, strict=True):
        versions[answer.version] += len(rows)
    client.feedback("churn", {key: rows[LABEL].tolist() for key, rows in zip(ids, requests, strict=True)})
    return versions


if __name__ == "__main__":
    main()
