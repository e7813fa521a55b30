"""The HTTP side: dialects, Gemma 4's prompt and output format, media, limits. Never starts an engine."""
