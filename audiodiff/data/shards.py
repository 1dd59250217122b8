"""Reading shards for training: any clip of any shard, while whole shards are read or fetched front to back.

Local shards are read where they lie; those of a server are fetched whole into a local folder (`shard_store`). All cuts
are indexed once (`cut_index`), so the order of training is known without reading audio: a run resumes at any update by
opening just the shards that this update needs. A shard that is lost for good is so for all its clips, which others
replace; it is asked for again after some minutes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audiodiff.data.cut_index import TableWriter, open_or_build
from audiodiff.data.entries import Entry, Summary, entry_of
from audiodiff.data.manifests import Manifest, load_cuts
from audiodiff.data.order import Shards
from audiodiff.data.shar import LIST_VERSION, write_list
from audiodiff.data.shard_store import ShardStore, Wanted
from audiodiff.data.tar import Member, data_members
from audiodiff.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

ASK_AGAIN_SECONDS = 300.0
_FETCHERS = 4


@dataclass(frozen=True)
class ShardOptions:
    """How shards are kept and mixed.

    Attributes:
        together: shards whose clips are shuffled with one another.
        cache: folder for fetched shards; None takes audiodiff/shards in XDG_CACHE_HOME or ~/.cache.
        cache_gigabytes: most that they take there; two times `together` shards have to fit.
    """

    together: int = 8
    cache: Path | None = None
    cache_gigabytes: float = 50.0


_DEFAULT = ShardOptions()


def open_clips(location: str | Path, split: str, options: ShardOptions = _DEFAULT) -> Manifest | ShardedClips:
    """Returns the clips of one split, wherever they are.

    Args:
        location: a prepared folder, a folder of shards (out/shar, or lhotse's), or the address of one (http, https,
            s3, gs, ...).
        split: "train", "dev" or "test".
        options: of shards.

    Raises:
        InputError: nothing of that split is there; what is there is damaged.
    """
    if "://" in str(location):
        return ShardedClips(f"{str(location).rstrip('/')}/{split}.json", options)
    folder = Path(location)
    if (folder / f"{split}.jsonl.gz").exists():
        return load_cuts(folder / f"{split}.jsonl.gz")
    listed = folder / f"{split}.json"
    if not listed.is_file() and any((folder / split).glob("cuts.*.jsonl.gz")):
        list_shards(folder / split)
    if listed.is_file():
        return ShardedClips(str(listed), options)
    return load_cuts(folder / f"{split}.jsonl.gz")  # says what is missing and how to make it


def list_shards(folder: Path) -> Path:
    """Writes the list of shards that lhotse wrote to a folder beside it, as NAME.json; returns the list's path.

    Raises:
        InputError: a shard lacks its audio or its cuts; the list cannot be written.
    """
    shards = []
    for lines in sorted(folder.glob("cuts.*.jsonl.gz")):
        tar = folder / lines.name.replace("cuts.", "recording.", 1).replace(".jsonl.gz", ".tar")
        if not tar.is_file():
            raise InputError(
                f"{lines}: its audio {tar.name} is missing; expected Shar with the field recording"
            )
        clips = sum(1 for line in _unzipped(lines) if line.strip())
        facts = {"cuts": f"{folder.name}/{lines.name}", "recording": f"{folder.name}/{tar.name}"}
        shards.append({**facts, "bytes": tar.stat().st_size, "clips": clips})
    return write_list(folder, shards)


class ShardedClips:
    """The clips of a list of shards.

    Args:
        address: of the list, a path or an address.
        options: how shards are kept and mixed.

    Raises:
        InputError: the list or the cuts that it names cannot be read; the cache is too small.
    """

    def __init__(self, address: str, options: ShardOptions = _DEFAULT) -> None:
        self.address = address
        self.remote = "://" in address
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audiodiff" / "shards"
        cache = options.cache or home
        self._store = ShardStore(cache, options.cache_gigabytes * 1e9)
        listed = _fetched_list(address, cache) if self.remote else Path(address)
        self._listed = _read_list(listed)
        self._check_room(options)
        self.table = open_or_build(listed, self._fill)
        starts = np.concatenate([[0], np.cumsum([shard["clips"] for shard in self._listed])])
        self.shards = Shards(starts, options.together)
        self._opened: OrderedDict[int, tuple[int, list[Member]]] = OrderedDict()
        self._most_open = 2 * options.together
        self._lost: dict[int, tuple[float, str]] = {}
        self._asked: set[int] = set()
        self._fetchers: ThreadPoolExecutor | None = None

    def _check_room(self, options: ShardOptions) -> None:
        largest = max((shard.get("bytes") or 0 for shard in self._listed), default=0)
        needed = 2 * min(options.together, len(self._listed)) * largest
        if self.remote and needed > self._store.most_bytes:
            raise InputError(
                f"{self.address}: a cache of {options.cache_gigabytes} GB is too small for two groups of "
                f"{options.together} shards; give it {needed / 1e9:.2f} GB or shuffle fewer shards together"
            )

    def __del__(self) -> None:
        for file, _ in getattr(self, "_opened", {}).values():
            os.close(file)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": OrderedDict(), "_fetchers": None, "_asked": set()}

    def __len__(self) -> int:
        return len(self.table)

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each clip, int64."""
        return self.table.lengths

    @property
    def summary(self) -> Summary:
        """Rates, channels and labels of all clips."""
        return self.table.summary

    def entry(self, number: int) -> Entry:
        """Returns what training reads of one clip; its source names the shard."""
        entry = entry_of(json.loads(self.table.line(number)))
        return replace(entry, source=self._address(self._shard_of(number)))

    def content(self, number: int) -> bytes:
        """Returns the audio file of one clip.

        Raises:
            InputError: its shard cannot be fetched or opened, or ends before the clip.
        """
        shard = self._shard_of(number)
        file, members = self._open(shard)
        member = members[number - int(self.shards.starts[shard])]
        content = os.pread(file, member.bytes, member.start)
        if len(content) < member.bytes:
            raise InputError(
                f"{self._address(shard)}: cut off before {member.name}; write or copy the shard again"
            )
        return content

    def fetch_ahead(self, clips: np.ndarray) -> None:
        """Begins to fetch the shards of clips that will soon be read; returns at once."""
        if not self.remote:
            return
        if self._fetchers is None:
            self._fetchers = ThreadPoolExecutor(_FETCHERS)
        coming = set(np.unique(np.searchsorted(self.shards.starts, clips, side="right") - 1).tolist())
        for shard in coming - self._asked:
            self._fetchers.submit(self._store.fetch, self._wanted(shard))
        self._asked = coming  # what was asked for before may have made room since

    def _shard_of(self, number: int) -> int:
        return int(np.searchsorted(self.shards.starts, number, side="right")) - 1

    def _address(self, shard: int) -> str:
        base = self.address.rsplit("/", 1)[0] if self.remote else str(Path(self.address).parent)
        return f"{base}/{self._listed[shard]['recording']}"

    def _wanted(self, shard: int) -> Wanted:
        listed = self._listed[shard]
        return Wanted(self._address(shard), listed.get("bytes"), listed.get("sha256"))

    def _open(self, shard: int) -> tuple[int, list[Member]]:
        """Returns file descriptor and members of a shard, opened now or before."""
        if shard in self._opened:
            self._opened.move_to_end(shard)
            return self._opened[shard]
        until, reason = self._lost.get(shard, (0.0, ""))
        if time.monotonic() < until:
            raise InputError(reason)
        try:
            opened = self._open_anew(shard)
        except InputError as error:
            self._lost[shard] = (time.monotonic() + ASK_AGAIN_SECONDS, str(error))
            raise
        self._opened[shard] = opened
        if len(self._opened) > self._most_open:
            _, (file, _) = self._opened.popitem(last=False)
            os.close(file)
        return opened

    def _open_anew(self, shard: int) -> tuple[int, list[Member]]:
        address = self._address(shard)
        if self.remote:
            with self._store.opened(self._wanted(shard)) as stream:
                file = os.dup(stream.fileno())
        else:
            try:
                file = os.open(address, os.O_RDONLY)
            except OSError as error:
                raise InputError(f"{address}: cannot be opened ({error.strerror})") from error
            if hasattr(os, "posix_fadvise"):  # begin to read it all, front to back
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
        try:
            return file, self._members(shard, file)
        except InputError:
            os.close(file)
            raise

    def _members(self, shard: int, file: int) -> list[Member]:
        """Returns the audio files of a shard, one for each cut.

        Of a shard that is cut off, the clips that are still there can be read.
        """
        members, whole = data_members(file)
        first, stop = (int(place) for place in self.shards.starts[shard : shard + 2])
        lost = stop - first - len(members)
        address = self._address(shard)
        if lost < 0 or (lost > 0 and whole):
            raise InputError(
                f"{address}: holds {len(members)} clips, its list says {stop - first}; list it again"
            )
        for place in {0, len(members) - 1} if members else ():
            name = json.loads(self.table.line(first + place))["id"]
            if members[place].stem not in (None, name):
                raise InputError(f"{address}: clip {place} is {members[place].stem}, its cuts say {name}")
        return members + [Member("the clip", 1, 1 << 62, None)] * lost

    def _fill(self, writer: TableWriter) -> None:
        """Adds the cuts of all shards to the index."""
        for number, shard in enumerate(self._listed):
            count = 0
            for line in _unzipped(self._cuts_file(shard)):
                if line.strip():
                    writer.add(line if line.endswith(b"\n") else line + b"\n", self._entry(shard, line))
                    count += 1
            if count != shard["clips"]:
                raise InputError(
                    f"{self.address}: shard {number} has {count} cuts, its list says {shard['clips']}"
                )
        if not writer.summary.cuts:
            raise InputError(
                f"{self.address}: holds no cuts; run `audiodiff prepare` again or name another split"
            )

    def _entry(self, shard: dict[str, Any], line: bytes) -> Entry:
        try:
            return entry_of(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.address}: {shard['cuts']} holds what is not a cut in a shard: {error}"
            ) from error

    def _cuts_file(self, shard: dict[str, Any]) -> Path:
        if not self.remote:
            return Path(self.address).parent / shard["cuts"]
        address = f"{self.address.rsplit('/', 1)[0]}/{shard['cuts']}"
        wanted = Wanted(address, shard.get("cuts_bytes"), shard.get("cuts_sha256"))
        self._store.fetch(wanted)
        return self._store.path(wanted)


def _unzipped(path: Path) -> Iterable[bytes]:
    try:
        with gzip.open(path) as lines:
            yield from lines
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: cut off or damaged ({error}); write or copy the shards again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _fetched_list(address: str, cache: Path) -> Path:
    """Returns a copy of a remote list; it is fetched whenever shards are opened, for it may have changed."""
    folder = cache / hashlib.sha256(address.encode("utf-8")).hexdigest()[:16]
    wanted, store = Wanted(address), ShardStore(folder / "new", 0)
    kept, new = folder / "list.json", store.path(wanted)
    new.unlink(missing_ok=True)
    try:
        store.fetch(wanted)
    except InputError:
        if kept.is_file():  # the server may be away just now; the shards are checked in any case
            return kept
        raise
    if not kept.is_file() or kept.read_bytes() != new.read_bytes():
        os.replace(new, kept)
    return kept


def _read_list(path: Path) -> Sequence[dict[str, Any]]:
    """Returns the shards of a list.

    Raises:
        InputError: it is no list of shards.
    """
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != LIST_VERSION:
            raise InputError(
                f"{path}: version {content['version']}, expected {LIST_VERSION}; write the shards again"
            )
        for shard in content["shards"]:
            _inside(path, str(shard["cuts"]), str(shard["recording"]))
            if int(shard["clips"]) < 1:
                raise InputError(f"{path}: a shard of {shard['clips']} clips; write the shards again")
        return list(content["shards"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a list of shards ({type(error).__name__}: {error})") from error


def _inside(path: Path, *names: str) -> None:
    for name in names:
        if name.startswith("/") or ".." in Path(name).parts or "\\" in name:
            raise InputError(f"{path}: names {name!r}, which lies outside its folder")
