"""``python -m packager`` is ``airpack``."""

from packager.cli.main import main

if __name__ == "__main__":
    main()
