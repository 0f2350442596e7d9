"""An Airflow DAG that scores a day's rows each night with `penstock batch`, without an operator of Penstock's own.

The job is named after the day, so a task that Airflow runs again does nothing where the day is done, and goes on where it
stopped. Set the pool's slots to the cores that may be used.
"""

import subprocess
from datetime import datetime, timedelta

from airflow.sdk import dag, task


@dag(
    schedule="30 2 * * *",
    start_date=datetime(2027, 1, 1),  # noqa: DTZ001 - Airflow takes it for UTC
    catchup=False,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["penstock"],
)
def score_payments() -> None:
    """Scores what came in on a day, and writes the answers beside it."""

    @task
    def score(ds: str = "") -> None:
        """Calls the command, whose exit code is the task's."""
        subprocess.run(
            [
                "penstock",
                "batch",
                "fraud",
                f"s3://lake/payments/{ds}/",
                f"s3://lake/scores/{ds}",
                "--key",
                "id",
                "--job",
                ds,
                "--bad-rows",
                f"s3://lake/bad/{ds}.parquet",
            ],
            check=True,
        )

    score()


score_payments()
