"""Run the command line with ``python -m kimideploy``."""

from kimideploy.cli.app import main

if __name__ == "__main__":
    main()
