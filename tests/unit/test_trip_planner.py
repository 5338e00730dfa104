"""What is committed of examples/trip-planner/dist is what its sources make."""

import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/trip-planner"


def test_built_files_are_those_of_the_sources() -> None:
    for line in (EXAMPLE / "dist/sources.sha256").read_text().splitlines():
        known, _, path = line.partition("  ")

        now = hashlib.sha256((EXAMPLE / path).read_bytes()).hexdigest()

        assert now == known, f"{path} is newer than the built files: run `make demo-files`"


def test_built_files_are_small() -> None:
    assert sum(file.stat().st_size for file in (EXAMPLE / "dist").rglob("*") if file.is_file()) < 700_000


def test_pictures_are_small() -> None:
    for picture in (ROOT / "docs/pictures").glob("trip-planner*.png"):
        assert picture.stat().st_size < (1_500_000 if "moving" in picture.name else 200_000), picture.name
