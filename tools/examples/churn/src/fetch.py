"""Brings the customers of the first months into data/customers.csv, which DVC keeps by its content.

python src/fetch.py            # as many months as params.yaml says, or as there are already
python src/fetch.py --more 1   # one more: a month has passed
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import yaml
from customers import MONTH, month

DATA = Path("data/customers.csv")


def main() -> None:
    """Writes the file, and says what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--more", type=int, default=0, help="so many months more than there are")
    more = parser.parse_args().more
    wanted = yaml.safe_load(Path("params.yaml").read_text())["data"]["months"]
    known = pd.read_csv(DATA, usecols=[MONTH])[MONTH].nunique() if DATA.exists() else 0
    months = max(wanted, known + more)
    DATA.parent.mkdir(exist_ok=True)
    frame = pd.concat([month(number) for number in range(1, months + 1)], ignore_index=True)
    frame.to_csv(DATA, index=False)
    sys.stdout.write(f"{DATA} has {len(frame):,} customers of {months} months, to {frame[MONTH].iloc[-1]}\n")


if __name__ == "__main__":
    main()
