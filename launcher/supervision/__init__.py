"""The server's processes: starting, watching and stopping them, and the port while they are not there yet."""
