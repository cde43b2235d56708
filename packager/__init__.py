"""airpack: carry open AI models across an air gap, in one trip."""

from importlib.metadata import version

__version__ = version("airpack")
