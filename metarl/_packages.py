"""A check that `envs`, `agents` and `experiments` are imported from this distribution.

Their names are common: a folder or file of the same name in the working directory would be imported instead.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

OWN_PACKAGES = ("envs", "agents", "experiments")
OUR_PACKAGES = ("metarl", *OWN_PACKAGES)


def require_own_packages() -> None:
    """Check that each package is in the same folder as `metarl`, without importing it.

    Raises:
        ImportError: names the package, where it is and where it should be.
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
    """The folder of a package, or the file of a module; None if there is neither."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module created by hand, without a spec
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return None if spec.origin is None else Path(spec.origin).resolve()
