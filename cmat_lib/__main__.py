"""``python -m cmat_lib`` is the command ``cmat``."""

from cmat_lib.commands.cli import main

main()
