"""What a clinic's answers add up to: counts, agreement, drift, CSV."""
