"""Events as streams and pages, replays of them, and who reads them."""
