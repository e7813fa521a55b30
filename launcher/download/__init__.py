"""Brings the files of a model from a hub, a mirror or a folder into the cache, every byte checked.

``fetch.fetch_workspace`` is the way in. Where files lie is ``launcher.cache``'s business; which files a profile has is
the manifest's; the variables behind ``access.Access`` are ``config``'s.
"""
