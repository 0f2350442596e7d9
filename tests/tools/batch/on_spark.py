"""python -m tests.tools.batch.on_spark VERSION INPUT OUTPUT: Parquet scored by two threads of Spark on this machine.

It runs in an environment that has Spark, and does what the page on batches tells people to do.
"""

import sys

from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import to_arrow_schema

from penstock_tools.batch.spark import map_in_arrow


def main(version, rows, scores):
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    frame = spark.read.parquet(rows).repartition(3)
    score, schema = map_in_arrow(version, to_arrow_schema(frame.schema), keep=("id",))
    frame.mapInArrow(score, schema).write.parquet(scores)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
