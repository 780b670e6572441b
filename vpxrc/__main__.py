"""``python -m vpxrc`` is ``vpxrc``."""

from vpxrc.cli import main

if __name__ == "__main__":
    main()
