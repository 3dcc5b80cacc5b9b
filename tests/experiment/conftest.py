"""Makes `fake_stages` importable, here and (by inherited sys.path) in worker processes."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
