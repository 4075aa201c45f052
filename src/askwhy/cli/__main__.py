"""So that `python -m askwhy.cli` is the command too."""

from askwhy.cli import main

main()
