"""`python -m perceiver` is `perceiver`."""

from perceiver.cli import main

if __name__ == "__main__":
    main()
