"""`python -m mmalign` is the `mmalign` command."""

from mmalign.cli import main

if __name__ == "__main__":
    main()
