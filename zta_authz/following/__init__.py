"""What a decision point receives from its administrator: grants, revocations and signals, kept for decisions."""
