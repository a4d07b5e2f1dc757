"""Settings of the property tests."""

from __future__ import annotations

from hypothesis import settings

# A time limit per example fails on a busy machine, and says nothing about the code.
settings.register_profile("protocol", deadline=None, print_blob=True)
settings.load_profile("protocol")
