"""Whether a run's self-graded reward can be trusted: anchor, probe, exploitation, alarm."""
