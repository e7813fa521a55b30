"""The folder of models: its layout, links, locks and records, shared by processes and machines."""
