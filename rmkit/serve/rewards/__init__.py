"""From scores to rewards: mixing, groups, transforms, and the log of what was served."""
