"""What tools/bench_protein.py measures with: the other decoder, the structures, the clock, the recovery curve."""
