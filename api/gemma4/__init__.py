"""Gemma 4's prompt and output format: pure code over token ids, without I/O, clock or global state."""
