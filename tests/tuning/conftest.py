"""Makes `fake_tuning_stages` importable by name, as a stage module is."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
