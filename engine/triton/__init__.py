"""Triton's side of the engine: the inference protocol's messages, and the client that both kinds of server share."""
