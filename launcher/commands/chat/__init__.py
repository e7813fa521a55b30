"""``gemma4-nim chat``: a conversation with a running server, in a terminal or through pipes."""
