"""A file that grows on the disk's thread."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

#: Names that are tried after the wanted one is taken: -1, -2 ...
MAX_SUFFIX = 9999

#: Buffers in one C{writev}.  Linux and macOS have 1024, POSIX guarantees 16.
IOV_MAX = os.sysconf("SC_IOV_MAX") if "SC_IOV_MAX" in os.sysconf_names else 16


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


#: Makes the bytes at the start of a file that is finished, given its size, its last
#: checkpoint, and whether the disk has room for an index.
MakeHead = Callable[[int, Any, bool], bytes]


class LowSpace(OSError):
    """The disk has less free space than must remain."""


class FileRemoved(OSError):
    """The file has been removed from its directory while it was written."""


class DiskFile:
    """
    A new file; everything here runs on the disk's thread.

    It is created by the first L{append}, under a name that nothing had, below its
    directory: no symbolic link is followed on the way.  After an error nothing more
    is written, and the file ends with the last batch that was stored whole.

    @ivar path: where it is; empty until it has been created.
    @ivar size: bytes of all batches that were stored.
    @ivar checkpoint: the object that was given with the last batch that was stored.
    """

    def __init__(
        self,
        directory: str,
        components: Sequence[str],
        *,
        suffix: str = "",
        minFree: int = 0,
    ) -> None:
        """
        @param directory: made if it is not there.
        @param components: names of folders below it, and of the file.
        @param suffix: the end of the file's name, such as C{".flv"}.
        @param minFree: bytes that must remain free on the disk.
        """
        self.path = ""
        self.size = 0
        self.checkpoint: Any = None
        self._directory = directory
        self._folders = list(components[:-1])
        self._name = components[-1]
        self._suffix = suffix
        self._minFree = minFree
        self._fd = -1
        self._identity = (0, 0)
        self._holeEnd = 0
        self._error: OSError | None = None

    def append(
        self,
        buffers: list[bytes],
        checkpoint: object = None,
        *,
        hole: int = 0,
        sync: bool = False,
        check: bool = False,
    ) -> OSError | None:
        """
        Store a batch at the end, whole or not at all.

        @param checkpoint: kept with the file when the batch is stored.
        @param hole: how many zeros follow the first buffer, in bytes.  They take no
            space on the disk as long as the file is small.
        @param sync: whether to wait until it is on the disk itself.
        @param check: whether to look for free space and the file's name.
        @return: L{None}, or why no other batch can follow this one.
        @raise OSError: the batch is not stored.
        """
        if self._error is not None:
            raise self._error
        try:
            self._open()
            size = self._write(buffers, hole)
            if sync:
                _syncData(self._fd)
            if check and not os.fstat(self._fd).st_nlink:
                raise _removed()
        except OSError as error:
            self._error = error
            self._cutBack()
            raise
        self.size += size
        self.checkpoint = checkpoint
        if check and self._minFree:
            self._error = self._lowSpace(self._fd)
        return self._error

    def _write(self, buffers: list[bytes], hole: int) -> int:
        if hole:
            size = _writeAll(self._fd, buffers[:1]) + hole
            os.lseek(self._fd, hole, os.SEEK_CUR)
            self._holeEnd = size
            return size + _writeAll(self._fd, buffers[1:])
        if self._holeEnd and self.size >= 2 * self._holeEnd:
            # So that the disk has room for what will be written there.
            _allocate(self._fd, self._holeEnd)
            self._holeEnd = 0
        return _writeAll(self._fd, buffers)

    def overwrite(self, data: bytes, offset: int) -> None:
        """
        Replace bytes that have been stored.

        @raise OSError: the system refuses.
        """
        if self.size:
            self._open()
            _overwriteAll(self._fd, data, offset)

    def rest(self) -> None:
        """Give the descriptor back until something is written again."""
        if self._fd >= 0 and self._error is None:
            os.close(self._fd)
            self._fd = -1

    def finish(self, makeHead: MakeHead, *, sync: bool = False) -> bool:
        """
        Overwrite the beginning and close the file; remove it if it is empty.

        @param makeHead: makes the bytes at the start.
        @return: whether there is a file.
        @raise OSError: the beginning could not be written; the file is closed.
        """
        if not self.path:
            return False
        try:
            self._open()
            if not self.size:
                os.unlink(self.path)
                return False
            _overwriteAll(self._fd, self._makeHead(makeHead), 0)
            if sync:
                os.fsync(self._fd)
        finally:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
        return True

    def _makeHead(self, makeHead: MakeHead) -> bytes:
        """Make the bytes at the start, as many as the disk has room for."""
        head = makeHead(self.size, self.checkpoint, True)
        if self._holeEnd:
            try:
                _allocate(self._fd, len(head))
            except OSError:
                return makeHead(self.size, self.checkpoint, False)
        return head

    def _open(self) -> None:
        """Create the file, or open it again after a L{rest}."""
        if self._fd >= 0:
            return
        folder = self._openFolder()
        try:
            if self.path:
                self._openIn(folder)
            else:
                name = self._createIn(folder)
                self.path = os.path.join(self._directory, *self._folders, name)
        finally:
            os.close(folder)
        # So that the repair command lets it alone.  NFS may know no locks.
        with suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _openFolder(self) -> int:
        try:
            folder = os.open(self._directory, _FOLDER)
        except FileNotFoundError:
            os.makedirs(self._directory, exist_ok=True)
            folder = os.open(self._directory, _FOLDER)
        try:
            if self._minFree and not self.path:
                low = self._lowSpace(folder)
                if low is not None:
                    raise low
            for name in self._folders:
                inner = _enter(folder, name)
                os.close(folder)
                folder = inner
        except OSError:
            os.close(folder)
            raise
        return folder

    def _createIn(self, folder: int) -> str:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        for number in range(MAX_SUFFIX + 1):
            distinct = f"-{number}" if number else ""
            name = f"{self._name}{distinct}{self._suffix}"
            try:
                self._fd = os.open(name, flags, 0o666, dir_fd=folder)
            except FileExistsError:
                continue
            self._identity = _identityOf(self._fd)
            return name
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self._name)

    def _openIn(self, folder: int) -> None:
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(os.path.basename(self.path), flags, dir_fd=folder)
        except FileNotFoundError:
            raise _removed() from None
        if _identityOf(fd) != self._identity:
            os.close(fd)
            raise _removed()
        os.lseek(fd, self.size, os.SEEK_SET)
        self._fd = fd

    def _lowSpace(self, fd: int) -> LowSpace | None:
        figures = os.fstatvfs(fd)
        free = figures.f_bavail * figures.f_frsize
        if free >= self._minFree:
            return None
        return LowSpace(
            errno.ENOSPC, f"{free} bytes free, less than the {self._minFree} to keep"
        )

    def _cutBack(self) -> None:
        """Remove a batch that was stored in part."""
        # If this fails too, the file ends with a piece of a tag, as after a crash; the
        # error that is already on its way says why.
        if self._fd >= 0:
            with suppress(OSError):
                os.ftruncate(self._fd, self.size)


def _removed() -> FileRemoved:
    return FileRemoved(errno.ENOENT, "the file has been removed")


def _identityOf(fd: int) -> tuple[int, int]:
    """Tell which file this is, whatever its name."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _enter(folder: int, name: str) -> int:
    """
    Open a folder in a folder; make it if it is not there.

    @raise OSError: it is a symbolic link, or not a folder.
    """
    flags = _FOLDER | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a folder"
        raise OSError(error.errno, f"{name} is {what}") from error


def _writeAll(fd: int, buffers: list[bytes]) -> int:
    """
    Write all buffers.

    @return: how many bytes they have.
    """
    written = 0
    for start in range(0, len(buffers), IOV_MAX):
        part: list[bytes | memoryview] = list(buffers[start : start + IOV_MAX])
        while part:
            count = os.writev(fd, part)
            written += count
            done = 0
            for buffer in part:
                if count < len(buffer):
                    break
                count -= len(buffer)
                done += 1
            del part[:done]
            if part and count:
                part[0] = memoryview(part[0])[count:]
    return written


def _overwriteAll(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count


def _syncData(fd: int) -> None:
    # macOS has no fdatasync.
    getattr(os, "fdatasync", os.fsync)(fd)


def _allocate(fd: int, size: int) -> None:
    """Give a file's beginning its space on the disk; what is there stays."""
    # macOS has no posix_fallocate, and some file systems cannot do it.
    allocate = getattr(os, "posix_fallocate", None)
    if allocate is not None:
        try:
            allocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
