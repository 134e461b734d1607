"""Parts of tools/bench_train.py: one module for each thing it measures."""
