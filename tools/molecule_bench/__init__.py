"""What the molecular benches measure with: the EGNN to compare with, batches, judged samples, fragments."""
