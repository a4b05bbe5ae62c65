"""Where images are kept while a network learns from them: in memory, and what is too much for it on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from denoise_se.atomic_file import lock, temporary_path
from denoise_se.errors import DatasetError
from denoise_se.memory import free_memory

SHARE = 0.5  # of the free memory, for images
BESIDES = 2e9  # bytes of memory that are left for the rest: decoding, steps and the report on a run
SEGMENT = 1 << 30  # bytes of a file; one for each image would be more mappings than a process may have
PAGE = 4096
SPARE_DISK = 500_000_000  # bytes that are left for the run's own files


class PixelStore:
    """Keeps image tensors, several threads at a time.

    What goes beyond `budget` bytes is written to files in `folder` and mapped: the system reads what is asked for, and
    lets go of it when memory is short. The files have no name any more as soon as they are mapped, so that not even a
    kill leaves them behind.

    Attributes:
        count, kept, mapped: images, and their bytes in memory and on the disk.
        tell: is told after each image.
    """

    def __init__(
        self, folder: Path, *, processes: int = 1, tell: Callable[[PixelStore], None] = lambda _: None
    ) -> None:
        """`budget` is at most half of the free memory, shared by so many processes; without end where the system does
        not say how much there is."""
        free = free_memory()
        share = float("inf") if free is None else free / processes
        self.budget = max(0.0, min(SHARE * share, share - BESIDES))
        self.folder, self.tell = folder, tell
        self.count = self.kept = self.mapped = 0
        self._lock = Lock()
        self._segment: Segment | None = None

    def keep(self, image: Tensor) -> Tensor:
        """The same pixels [C, H, W], of any dtype; give up the tensor that was handed in.

        Raises:
            DatasetError: neither memory nor the disk has room for it.
        """
        with self._lock:
            self.count += 1
            if self.kept + image.nbytes <= self.budget:
                self.kept += image.nbytes
            else:
                image = self._mapped(image)
                self.mapped += image.nbytes
            self.tell(self)
        return image

    def __str__(self) -> str:
        on_disk = f", {self.mapped / 1e9:.1f} GB of them on the disk" if self.mapped else ""
        return f"{self.count:,} images, {(self.kept + self.mapped) / 1e9:.1f} GB{on_disk}"

    def _mapped(self, image: Tensor) -> Tensor:
        try:
            if self._segment is None or self._segment.left < image.nbytes:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._segment = Segment(self.folder, max(SEGMENT, image.nbytes))
            if shutil.disk_usage(self.folder).free < image.nbytes + SPARE_DISK:
                raise OSError("the disk is full")
            return self._segment.write(image)
        except (OSError, RuntimeError) as error:
            raise DatasetError(
                f"{self.folder}: the images take more than the {self.kept / 1e9:.1f} GB of memory that there are for "
                f"them, and the rest cannot be kept there ({error}); make room, choose another -o, or give fewer images"
            ) from error


class Segment:
    """A file without a name, mapped, that is filled from its start. Raises OSError or RuntimeError."""

    def __init__(self, folder: Path, size: int) -> None:
        path = temporary_path(folder)
        try:
            self.stream = path.open("xb")
            lock(self.stream)  # so that another process of the run does not take it for one that was left behind
            self.stream.truncate(size)
            self.bytes = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)
        finally:
            with suppress(OSError):  # Windows keeps the names of files in use
                path.unlink()
        self.end = 0

    @property
    def left(self) -> int:
        return len(self.bytes) - self.end

    def write(self, image: Tensor) -> Tensor:
        """The image, read from the file."""
        # channels last: the rows of a patch then lie on a third of the pages. Written as to any file, for a full disk
        # is an error then; to memory that is mapped it would be a signal that kills
        pixels = image.permute(1, 2, 0).contiguous()
        self.stream.seek(self.end)
        self.stream.write(pixels.numpy().data)
        self.stream.flush()
        found = self.bytes[self.end : self.end + image.nbytes].view(pixels.dtype).view(pixels.shape)
        self.end = min(len(self.bytes), -(-(self.end + image.nbytes) // PAGE) * PAGE)
        return found.permute(2, 0, 1)
