"""Rows of a database's table, and answers in one, each exactly once: in sqlite, and in a real PostgreSQL."""

import hashlib
import random

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.models import artifact
from penstock_tools import progress
from penstock_tools.batch.database import PARTS
from penstock_tools.batch.run import Request, run
from penstock_tools.batch.scoring import Scorer
from tests.postgres import postgres_server
from tests.tools.batch.conftest import table
from tests.tools.batch.killed import attempt

ROWS = 4000


def done(*arguments, **options):
    with progress.bars() as bars:
        return run(Request(*map(str, arguments), processes=1, **options), bars)


def fill(url, rows=ROWS):
    """A table of customers in another order than that of their ids."""
    engine = sa.create_engine(url)
    whole = table(rows).take(pa.array(np.random.default_rng(0).permutation(rows)))
    with engine.begin() as connection:
        connection.execute(
            sa.text("CREATE TABLE customers (id BIGINT, age DOUBLE PRECISION, fare DOUBLE PRECISION, city TEXT)")
        )
        customers = sa.table("customers", *map(sa.column, whole.column_names))
        rows_of = whole.to_pylist()
        for at in range(0, rows, 1000):
            connection.execute(sa.insert(customers).values(rows_of[at : at + 1000]))
    engine.dispose()


def content(url, name="scores", key="id"):
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(sa.text(f"SELECT * FROM {name} ORDER BY {key}")).all()
    engine.dispose()
    return found


def tables(url):
    engine = sa.create_engine(url)
    found = sorted(sa.inspect(engine).get_table_names())
    engine.dispose()
    return found


def digest(rows):
    return hashlib.sha256(repr([tuple(row) for row in rows]).encode()).hexdigest()


@pytest.fixture
def sqlite(tmp_path):
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    fill(url)
    return url


@pytest.fixture(scope="module")
def expected(version):
    """The label of each row, by its id."""
    scorer = Scorer(artifact.read(version), ("stay", "1"), keep=("id",))
    answers = scorer(table(ROWS).combine_chunks().to_batches()[0])
    scorer.close()
    return answers


@pytest.mark.long
def test_a_table_is_scored_into_a_table(version, sqlite, expected):
    report = done(version, f"{sqlite}#customers", f"{sqlite}#scores", key=("id",), part_rows=900)
    found = content(sqlite)
    assert report.rows == len(found) == ROWS
    assert [row.label for row in found] == expected["label"].to_pylist()
    assert [row.probabilities_stays for row in found] == expected["probabilities_stays"].to_pylist()
    assert tables(sqlite) == ["customers", PARTS, "scores"]


def test_rows_of_the_same_key_are_replaced_and_others_stay(version, sqlite):
    done(version, f"{sqlite}#customers", f"{sqlite}#scores", key=("id",))
    engine = sa.create_engine(sqlite)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE scores SET label = 'old'"))
        connection.execute(sa.text("INSERT INTO scores (id, label) VALUES (999999, 'other')"))
    engine.dispose()
    done(version, f"{sqlite}#customers", f"{sqlite}#scores", key=("id",))
    found = content(sqlite)
    assert len(found) == ROWS + 1
    assert {row.label for row in found} == {"stays", "leaves", "other"}


def test_a_job_of_a_name_is_done_once(version, sqlite):
    arguments = version, f"{sqlite}#customers", f"{sqlite}#scores"
    assert not done(*arguments, key=("id",), job="monday").was_finished
    assert done(*arguments, key=("id",), job="monday").was_finished
    assert not done(*arguments, key=("id",), job="tuesday").was_finished


def test_a_key_that_does_not_tell_rows_apart_is_refused(version, sqlite):
    with pytest.raises(InvalidInputError, match=r"two rows have the same key \(city\)"):
        done(version, f"{sqlite}#customers", f"{sqlite}#scores", key=("city",))
    assert content(sqlite, "scores", "city") == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("table_name", "key", "kind", "sentence"),
    [
        ("customers", (), InvalidInputError, "needs a key|no order of their own"),
        ("customers", ("number",), InvalidInputError, "no column 'number'; it has id"),
        ("nobody", ("id",), UnavailableError, "does not do what is asked"),
    ],
)
def test_a_table_that_cannot_be_read_is_told(version, sqlite, table_name, key, kind, sentence):
    with pytest.raises(kind, match=sentence):
        done(version, f"{sqlite}#{table_name}", f"{sqlite}#scores", key=key)


def test_a_table_of_other_columns_is_refused(version, sqlite):
    with pytest.raises(InvalidInputError, match="table 'customers' has no column 'label'"):
        done(version, f"{sqlite}#customers", f"{sqlite}#customers", key=("id",))


@pytest.fixture(scope="module")
def postgres():
    """The address of a PostgreSQL of this module."""
    with postgres_server() as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_kills_lose_no_row_and_double_none_in_postgresql(version, postgres, expected, seed):
    if "customers" not in tables(postgres):
        fill(postgres)
    done(version, f"{postgres}#customers", f"{postgres}#undisturbed", key=("id",), keep=("*",), part_rows=1000)
    draw = random.Random(seed)
    name = f"scores{seed}"
    killed = 0
    while not attempt(draw.randrange(1, 13), version, f"{postgres}#customers", f"{postgres}#{name}"):
        killed += 1
        assert killed < 20
    found, undisturbed = content(postgres, name), content(postgres, "undisturbed")
    assert len(found) == ROWS
    assert digest(found) == digest(undisturbed)
    assert [row.label for row in found] == expected["label"].to_pylist()
    assert not [each for each in tables(postgres) if each.startswith(f"{name}_penstock")]
