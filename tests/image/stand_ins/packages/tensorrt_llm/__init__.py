"""A package with this name, and nothing in it: it stands for the engine where that cannot be installed."""
