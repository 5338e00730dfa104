"""What holds for `tests/` and `property_tests/` alike.

Trials marked `long` run only when asked for (`--long`, or `-m long`). Tests marked `waits` are started first, then the
other trials.
"""

import os
import signal
import sys
from collections.abc import Iterator

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
    """More than there are cores: many trials wait for what they broke, and use no CPU meanwhile."""
    return (os.cpu_count() or 1) + 2


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    long = [item for item in items if item.get_closest_marker("long")]
    if long and not (config.getoption("--long") or "long" in config.option.markexpr):
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    items[:] = list(dealt(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))


def dealt(items: list[pytest.Item], workers: int) -> Iterator[pytest.Item]:
    """What takes long first, or one worker is left alone with it in the end.

    At first, each worker gets one of as many equal parts of all tests; later it takes from the ends of others' parts. So
    each gets some of those that wait, and the first one the trials, most of which need the machine.
    """
    waits = [item for item in items if item.get_closest_marker("waits")]
    others = [item for item in items if not item.get_closest_marker("waits")]
    others.sort(key=lambda item: "trials" not in item.path.parts)
    left = len(items)
    for number in range(workers):
        part = left // (workers - number)
        left -= part
        rest = max(0, part - len(waits[number::workers]))
        yield from (*waits[number::workers], *others[:rest])
        del others[:rest]
    yield from others
