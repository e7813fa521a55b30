"""Engine bundles on the launcher's side: where they are kept, who may build, what they are checked against."""
