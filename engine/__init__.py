"""Inference engines behind one protocol: the protocol, its cores, the wire, and both ends of that wire."""
