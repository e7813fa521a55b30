"""The commands of ``gemma4-nim``, one module or package each; ``launcher.cli`` imports only the one that is run.

A command turns options into calls of the launcher's parts and their results into text or JSON. It decides nothing that
another command or the server would have to decide, too.
"""
