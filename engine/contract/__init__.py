"""What is used of libraries that tests cannot run: written down entry by entry, and compared with the real thing."""
