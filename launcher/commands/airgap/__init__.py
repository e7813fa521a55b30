"""``airgap``: everything that a site without network needs, gathered in one folder, and checked on the other side."""
