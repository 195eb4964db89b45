"""The search service."""

import reid as reid  # which tells where modules went
