"""What holds for all tests."""

from hypothesis import settings

# A busy machine must not fail a property: pytest-timeout bounds the whole test instead.
settings.register_profile("default-without-deadline", deadline=None)
settings.load_profile("default-without-deadline")
