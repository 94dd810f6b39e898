"""Whether `envs`, `agents` and `experiments` are this distribution's own.

Their names are common: a folder or a file of the same name in the working directory is imported in their place.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

OWN_PACKAGES = ("envs", "agents", "experiments")
OUR_PACKAGES = ("metarl", *OWN_PACKAGES)


def require_own_packages() -> None:
    """Check that each package lies beside `metarl`, in a checkout as in an installation; imports none of them.

    Raises:
        ImportError: naming the package, where it is and where it should be.
    """
    home = Path(__file__).resolve().parents[1]
    for name in OWN_PACKAGES:
        expected = home / name
        found = _location(name)
        if found is None:
            raise ImportError(f"package {name!r} of MetaRL is missing: it should be at {expected}")
        if found != expected:
            raise ImportError(
                f"package {name!r} is imported from {found} and not from MetaRL's own {expected}: "
                f"rename the former, or run from another directory"
            )


def _location(name: str) -> Path | None:
    """The folder of a package, or the file of a module; None where there is nothing of that name."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module made by hand, without a specification
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return None if spec.origin is None else Path(spec.origin).resolve()
