"""``gemma4-nim bench``: puts a load on a running server and measures what its clients would see."""
