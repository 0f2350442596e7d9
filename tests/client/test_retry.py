import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_client.retry import Backoff, Bucket, RetryBudget, is_countable, pause_before_retry_s
from penstock_client.steps import Failure

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
OTHERS = [code for code in grpc.StatusCode if code not in (UNAVAILABLE, EXHAUSTED)]
BACKOFF = Backoff(initial_s=0.1, cap_s=0.5, multiplier=2)


def pause_s(code, *, pushback_s=None, retry=0, retries=3, remaining_s=10.0, fraction=1.0):
    failure = Failure(code, pushback_s=pushback_s)
    return pause_before_retry_s(
        failure, BACKOFF, retry=retry, retries=retries, remaining_s=remaining_s, fraction=fraction
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"code": UNAVAILABLE}, 0.1),
        ({"code": UNAVAILABLE, "fraction": 0.0}, 0.0),
        ({"code": UNAVAILABLE, "fraction": 0.25}, 0.025),
        ({"code": UNAVAILABLE, "retry": 1}, 0.2),
        ({"code": UNAVAILABLE, "retry": 2}, 0.4),
        ({"code": UNAVAILABLE, "retry": 90, "retries": 100}, 0.5),
        ({"code": UNAVAILABLE, "retry": 3}, None),
        ({"code": UNAVAILABLE, "retries": 0}, None),
        ({"code": UNAVAILABLE, "remaining_s": 0.1}, None),
        ({"code": UNAVAILABLE, "remaining_s": 0.11}, 0.1),
        ({"code": UNAVAILABLE, "pushback_s": 0.0}, 0.0),
        ({"code": UNAVAILABLE, "pushback_s": 2.0}, 2.0),
        ({"code": UNAVAILABLE, "pushback_s": 20.0}, None),
        ({"code": UNAVAILABLE, "pushback_s": -1.0}, None),
        ({"code": EXHAUSTED}, None),
        ({"code": EXHAUSTED, "pushback_s": 0.25}, 0.25),
        ({"code": EXHAUSTED, "pushback_s": 0.0}, 0.0),
        ({"code": EXHAUSTED, "pushback_s": 0.25, "retry": 3}, None),
        ({"code": EXHAUSTED, "pushback_s": -1.0}, None),
    ],
)
def test_the_table_of_pauses(options, expected):
    assert pause_s(**options) == expected


@pytest.mark.parametrize("code", OTHERS)
@pytest.mark.parametrize("pushback_s", [None, 0.0, 1.0])
def test_other_codes_are_final(code, pushback_s):
    assert pause_s(code, pushback_s=pushback_s) is None


@given(
    retry=st.integers(0, 2000),
    remaining_s=st.floats(0, 100),
    fraction=st.floats(0, 1),
    pushback=st.none() | st.floats(-1, 100),
)
def test_a_pause_is_within_the_time_left(retry, remaining_s, fraction, pushback):
    pause = pause_s(
        UNAVAILABLE, retry=retry, retries=1000, remaining_s=remaining_s, fraction=fraction, pushback_s=pushback
    )
    assert pause is None or 0 <= pause < remaining_s
    if retry >= 1000:
        assert pause is None


@pytest.mark.parametrize("wrong", [{"initial_s": 0}, {"initial_s": 2, "cap_s": 1}, {"multiplier": 0.5}])
def test_a_backoff_is_checked_on_construction(wrong):
    with pytest.raises(ValueError, match="expected 0 < initial_s <= cap_s"):
        Backoff(**wrong)


@pytest.mark.parametrize("multiplier", [1, 1.5])
def test_a_backoff_may_be_constant_and_may_start_at_its_cap(multiplier):
    backoff = Backoff(initial_s=1.0, cap_s=1.0, multiplier=multiplier)
    assert [backoff.ceiling_s(retry=retry) for retry in (0, 1, 9)] == [1.0] * 3


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"tokens": -1.0}, {"ratio": 0}])
def test_a_budget_is_checked_on_construction(wrong):
    with pytest.raises(ValueError, match="expected tokens above 0"):
        RetryBudget(**wrong)


def test_retries_end_while_half_of_the_bucket_is_gone_and_answers_bring_them_back():
    bucket = Bucket(RetryBudget(tokens=4, ratio=0.5))
    afforded = []
    for _ in range(6):
        bucket.on_failure()
        afforded.append(bucket.affords_retry)
    assert afforded == [True, False, False, False, False, False]
    back = []
    for _ in range(6):
        bucket.on_answer()
        back.append(bucket.affords_retry)
    assert back == [False, False, False, False, True, True]


def test_a_bucket_is_full_until_something_fails_and_again_when_enough_was_answered():
    bucket = Bucket(RetryBudget(tokens=4, ratio=0.5))
    assert bucket.is_full
    bucket.on_failure()
    assert not bucket.is_full
    for _ in range(2):
        bucket.on_answer()
    assert bucket.is_full
    bucket.on_answer()
    assert bucket.is_full


def test_without_a_budget_every_retry_is_afforded():
    bucket = Bucket(None)
    for _ in range(1000):
        bucket.on_failure()
    assert bucket.affords_retry
    assert bucket.is_full


@given(st.lists(st.booleans(), max_size=300), st.floats(0.01, 3), st.floats(0.5, 20))
def test_a_server_that_fails_for_long_gets_a_share_of_retries(outcomes, ratio, tokens):
    bucket = Bucket(RetryBudget(tokens=tokens, ratio=ratio))
    retries = 0
    for is_answer in outcomes:
        if is_answer:
            bucket.on_answer()
        else:
            bucket.on_failure()
            retries += bucket.affords_retry
    assert retries <= tokens / 2 + ratio * outcomes.count(True) + 1


@pytest.mark.parametrize(
    ("failure", "counts"),
    [
        (Failure(UNAVAILABLE), True),
        (Failure(UNAVAILABLE, pushback_s=-1.0), True),
        (Failure(EXHAUSTED), False),
        (Failure(EXHAUSTED, pushback_s=0.1), True),
        (Failure(grpc.StatusCode.INVALID_ARGUMENT), False),
        (Failure(grpc.StatusCode.INTERNAL, pushback_s=-1.0), True),
    ],
)
def test_what_takes_a_token(failure, counts):
    assert is_countable(failure) is counts
