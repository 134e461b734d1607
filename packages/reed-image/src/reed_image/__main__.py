"""`python -m reed_image` is `reed-image`."""

from reed_image.cli import main

main()
