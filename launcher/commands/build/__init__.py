"""``gemma4-nim build``: the command, and what it shows while it works."""
