"""What is measured: one module for each area, with a function that measures and returns a section of the page."""
