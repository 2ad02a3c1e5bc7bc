"""SmallDisk: a folder that is full when it should be."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from arc_bus.errors import Unsupported


class SmallDisk:
    """A file system of its own in memory (tmpfs), small enough to be filled; Linux, as root.

    `with SmallDisk(16) as disk:` mounts 16 MiB at `disk.folder`, to be given to a server as its
    data folder. Writing to a full one fails with ENOSPC, as on a real disk: no user can have that
    without mounting something (a limit of file sizes says EFBIG and kills by SIGXFSZ, which is
    another fault). Where this process may not mount, entering raises Unsupported.
    """

    def __init__(self, mebibytes: int = 16) -> None:
        """Hold so many MiB."""
        self._size = mebibytes
        self._base: Path | None = None

    @property
    def folder(self) -> Path:
        """Where it is mounted."""
        assert self._base is not None, "it is mounted inside `with`"
        return self._base

    @property
    def free(self) -> int:
        """Bytes that still can be written."""
        return shutil.disk_usage(self.folder).free

    def __enter__(self) -> Self:
        """Mount it. Raises Unsupported."""
        base = Path(tempfile.mkdtemp(prefix="arc-disk-"))
        order = ["mount", "-t", "tmpfs", "-o", f"size={self._size}m,mode=0777", "tmpfs", str(base)]
        try:
            done = subprocess.run(order, check=False, capture_output=True, text=True)
            why = done.stderr.strip() if done.returncode else ""
        except FileNotFoundError as error:
            why = str(error)
        if why:
            base.rmdir()
            raise Unsupported(f"cannot mount a small disk: {why}; run as root, on Linux")
        self._base = base
        return self

    def __exit__(self, *_: object) -> None:
        """Unmount it with all that is on it; whoever still writes there loses its files."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True, capture_output=True)
        self.folder.rmdir()

    def fill(self, leave: int = 0) -> None:
        """Use up all space but `leave` bytes."""
        with self._ballast.open("ab", buffering=0) as file:
            size = max(0, self.free - leave)
            while size > 0:
                try:
                    size -= file.write(bytes(min(size, 1 << 20)))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def empty(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.folder / f".ballast-{os.getpid()}"
