"""The rig of the consumer's tests."""

from tests.consumer.conftest import rig, view

__all__ = ["rig", "view"]
