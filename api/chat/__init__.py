"""The canonical chat request and its role rules, free of any dialect's schema."""
