"""What the user may set and what the launcher decided: settings models, their names, and the runtime records.

Nothing in here runs anything; every other package may import it, and it imports none of them.
"""
