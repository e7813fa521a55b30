"""``gemma4-nim doctor``: looks at everything that could stop a start, and says for each thing what repairs it."""
