"""Download files into a cache folder and check them against their known hashes."""

import os
from collections.abc import Sequence
from pathlib import Path

TIMEOUT_SECONDS = 30  # without an answer, before the next mirror is tried


def cache_folder() -> Path:
    """Folder of downloaded files: the variable `SPIKEVAE_CACHE`, or the user's cache folder."""
    import pooch

    return Path(os.environ.get("SPIKEVAE_CACHE") or pooch.os_cache("spikevae"))


def fetch(name: str, known_hash: str, mirrors: Sequence[str], folder: str) -> Path:
    """Path of the file `name`: in the cache if its hash is right, else downloaded from the first mirror that has it.

    Parameters
    ----------
    name : file name, appended to each mirror's URL.
    known_hash : `md5:...` or `sha256:...` of the file.
    mirrors : URLs of folders, tried in order.
    folder : subfolder of the cache.

    Raises
    ------
    ConnectionError
        Where no mirror gives the file with that hash; the message lists each attempt.
    """
    import pooch
    import requests

    destination = cache_folder() / folder
    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}"
        try:
            get = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)
            return Path(pooch.retrieve(url, known_hash, fname=name, path=destination, downloader=get))
        except (requests.RequestException, OSError, ValueError) as error:  # ValueError: the hash is wrong
            failures.append(f"  {url}: {error}")
    remedy = f"Put the file into {destination} or give its folder."
    raise ConnectionError("\n".join([f"{name} could not be downloaded:", *failures, remedy]))
