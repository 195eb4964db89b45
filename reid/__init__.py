"""Re-identification with Dual Cross-Attention Learning."""

import sys

from reid.moved import MovedFinder

if MovedFinder not in sys.meta_path:
    sys.meta_path.append(MovedFinder)
