def pytest_addoption(parser):
    parser.addoption("--size", type=int, default=10)
