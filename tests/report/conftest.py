"""The report's tests draw from the same synthetic results as those of the leaderboards."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "aggregate"))
