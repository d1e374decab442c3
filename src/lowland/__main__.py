"""`python -m lowland`: the command line."""

from lowland.cli import main

if __name__ == "__main__":
    main()
