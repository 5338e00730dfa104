"""What holds for `tests/` and `property_tests/` alike.

Trials marked `long` run only when asked for (`--long`, or `-m long`). Tests marked `waits` are started first, then the
other trials.
"""

import os
import signal
import sys

import pytest

# Whoever keeps no compiled modules would compile ours in each worker, and in each server that a test starts.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the trials marked `long`")


def pytest_configure(config: pytest.Config) -> None:
    # Who starts the run in the background may have Ctrl-C ignored, which programs that the tests start would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "waits: for a minute or more, using no CPU; the others run beside it")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many trials wait for what they broke, and use no CPU meanwhile."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # What takes long first, or one worker is left alone with it in the end.
    items.sort(key=lambda item: (item.get_closest_marker("waits") is None, "trials" not in item.path.parts))
    if config.getoption("--long") or "long" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
