"""`python -m lowland`: the command line."""

from lowland_command import main

if __name__ == "__main__":
    main()
