"""``python -m cmat_lib`` is the command ``cmat``."""

from cmat_lib.cli import main

main()
