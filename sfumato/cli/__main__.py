"""`python -m sfumato.cli`, as `sfumato`."""

from sfumato.cli import main

if __name__ == "__main__":
    main()
