"""Parquet files of a dataset as one table that is read on demand, through the dataset's own store.

So a local folder and S3 are the same, and S3 needs no other credentials. It doesn't know whose rows they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.ranged import RangedFile
from maskmill.storage.shards.shards import WrittenObject
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds


def parquet_rows(
    store: ObjectStore, written: Sequence[WrittenObject], schema: pa.Schema | None = None
) -> ds.Dataset:
    """Parquet files as one table that is read on demand, through the dataset's own store.

    Args:
        store: where they are.
        written: at least one.
        schema: of all of them; None takes the first one's.

    Raises:
        DamagedObject: the first file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.fs as pafs
    import pyarrow.parquet as pq

    names = [found.name for found in written]
    filesystem = pafs.PyFileSystem(_handler(store, {found.name: found.size_bytes for found in written}))
    try:
        schema = schema or pq.read_schema(names[0], filesystem=filesystem)
    except pa.ArrowException as exc:
        raise DamagedObject(f"{store.root}/{names[0]}: not a readable Parquet file ({exc})") from exc
    file_format = ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    )
    return ds.FileSystemDataset.from_paths(names, schema=schema, format=file_format, filesystem=filesystem)


def _handler(store: ObjectStore, sizes: Mapping[str, int]) -> Any:
    """The store as one of pyarrow's file systems, as far as reading these files goes."""
    import pyarrow as pa
    import pyarrow.fs as pafs

    class Handler(pafs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
        def get_type_name(self) -> str:
            """See pyarrow.fs.FileSystemHandler."""
            return "maskmill"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Handler)

        def __hash__(self) -> int:
            return hash(store)

        def normalize_path(self, path: str) -> str:
            """Names are taken as they are."""
            return path

        def open_input_file(self, path: str) -> Any:
            """An object, by ranged reads."""
            return pa.PythonFile(RangedFile(store, path, sizes[path]), mode="r")

        def open_input_stream(self, path: str) -> Any:
            """The same, read from its start."""
            return self.open_input_file(path)

        def get_file_info(self, paths: Sequence[str]) -> list[Any]:
            """Sizes, as the records say."""
            return [pafs.FileInfo(path, pafs.FileType.File, size=sizes[path]) for path in paths]

        def get_file_info_selector(self, selector: Any) -> list[Any]:
            """Refused.

            Raises:
                NotImplementedError: always.
            """
            raise NotImplementedError("names come from the generation, never from a listing")

        def _refuse(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError("a query only reads")

        create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _refuse
        delete_file = move = copy_file = open_output_stream = open_append_stream = _refuse

    return Handler()
