"""What tests of the headless library share."""

from Testing.commands import folder, labelled  # noqa: F401 - fixtures
