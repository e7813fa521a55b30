"""Which profile to run on which devices with which context, as pure functions, with a reason for every choice."""
