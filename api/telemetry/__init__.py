"""What operators see of requests: the record of each one, metrics made of it, and its trace. No web framework."""
