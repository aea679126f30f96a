"""What a trial does: train a candidate, or look it up."""
