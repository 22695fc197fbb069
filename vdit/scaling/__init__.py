"""How quality scales: FLOP accounting, law fitting and the report."""
