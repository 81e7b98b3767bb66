"""Options of the suite, the model under test, and how a case says what it is about."""

import pytest

from model import train


def pytest_addoption(parser):
    parser.addoption("--model", default="linear", choices=["linear", "forest", "boosted"])
    parser.addoption("--seed", default=1, type=int)


@pytest.fixture(scope="session")
def trained(pytestconfig):
    return train(pytestconfig.getoption("model"), pytestconfig.getoption("seed"))


@pytest.fixture
def about(record_property):
    """`about(batch, severity, *features)` puts these into the JUnit report."""

    def record(batch, severity, *features):
        record_property("test_batch_type", batch)
        record_property("severity", severity)
        record_property("features", ",".join(features))

    return record
