"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A deadline for single examples measures how busy the machine is. pytest-timeout ends a test that hangs, and bench/ and
# the tests of bounds say what may take how long.
settings.register_profile("without-deadline", deadline=None)
settings.load_profile("without-deadline")
