"""`python -m geoflow` runs the commands, where `geoflow` is not on the PATH."""

from geoflow.cli import main

main()
