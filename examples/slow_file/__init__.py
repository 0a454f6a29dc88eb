"""A slow file answered with 202."""
