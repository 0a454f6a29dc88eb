"""Real input that ships with the examples; README.md says where each file is from."""
