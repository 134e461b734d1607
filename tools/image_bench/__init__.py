"""Parts of tools/bench_image.py and tools/bench_image_guidance.py: one module for each thing they do."""
