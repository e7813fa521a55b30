"""The launcher: looks at settings and machine, plans, then starts, watches and stops the API and the engine.

It knows nothing of HTTP schemas or of Gemma 4's prompt format, and it starts the API as a process of its own.
"""
