"""Request and response formats that clients speak, translated to and from the canonical request of ``api.chat``."""
