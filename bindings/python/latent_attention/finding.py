"""Where the shared library is."""

import json
import os
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

VARIABLE = "LATENT_ATTENTION_LIBRARY"
# On Windows the file is called as the crate that it is made of.
NAME = {"darwin": "liblatent_attention.dylib", "win32": "latent_attention_c.dll"}.get(
    sys.platform, "liblatent_attention.so"
)
ADVICE = (
    "The library is built by `cargo xtask capi` in a checkout of latent-attention, into target/capi; "
    f"{VARIABLE} may name its file."
)
_PACKAGE = Path(__file__).resolve().parent


def places():
    """Files that may be the library, in the order in which they are tried. The last one is a name without a folder,
    which the system's loader looks for."""
    named = os.environ.get(VARIABLE)
    if named:
        # Whoever names a file wants that one and no other.
        return [named]
    source = _source()
    built = [] if source is None else [str(source.parents[1] / "target/capi" / NAME)]
    return [str(_PACKAGE / NAME), *built, NAME]


def _source():
    """The folder bindings/python of the checkout that this package lies in or was installed from."""
    return next((folder for folder in (_PACKAGE.parent, _installed_from()) if folder and _is_source(folder)), None)


def _is_source(folder):
    return folder.parts[-2:] == ("bindings", "python") and (folder / "pyproject.toml").is_file()


def _installed_from():
    """The folder that pip noted when it installed this package (https://peps.python.org/pep-0610), if it was one."""
    try:
        noted = metadata.distribution("latent-attention").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    url = urlparse(json.loads(noted)["url"]) if noted else None
    return Path(url2pathname(url.path)) if url and url.scheme == "file" else None
