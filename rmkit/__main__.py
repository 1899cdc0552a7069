"""`python -m rmkit` is the same as `rmkit`."""

from rmkit.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
