import os

import pytest
from scorer import LIMITS, Request, accept

MARKET = os.environ["MARKET"]


def test_more_income_never_hurts(pytestconfig):
    size = pytestconfig.getoption("--size")
    answers = [accept(Request(amount=500, income=income), MARKET) for income in range(1, size * 10, 10)]
    assert answers == sorted(answers)


def test_limit_is_exact():
    assert accept(Request(amount=LIMITS[MARKET], income=1), MARKET)
    assert not accept(Request(amount=LIMITS[MARKET] + 1e-9, income=1), MARKET)


@pytest.mark.parametrize("amount, income", [(-1, 1), (1, 0), (1, -5)])
def test_nonsense_is_refused(amount, income):
    with pytest.raises(ValueError):
        Request(amount=amount, income=income)
