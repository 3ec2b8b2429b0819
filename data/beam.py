"""Writing a TFDS folder with Apache Beam, through TFDS' own support for it: the workers read, encode and write."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.records import Layout, Record, Rows
from perceiver.errors import InputError, require


def write_with_beam(
    layout: Layout[Any], parts: Mapping[str, Rows], work: Path, version: str, options: Sequence[str]
) -> Path:
    """Write splits into a folder below `work`, in their order; empty ones are left out.

    options: of the Beam pipeline, as on a command line.

    Returns:
        The TFDS folder.

    Raises:
        MissingExtraError: Apache Beam is not installed.
        InputError: a record cannot be read.
    """
    beam = require("apache_beam", "beam")
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = layout.name
        VERSION = tfds.core.Version(version)

        def _info(self) -> tfds.core.DatasetInfo:
            return layout.info(self)

        def _split_generators(self, dl_manager: tfds.download.DownloadManager, pipeline: Any) -> dict[str, Any]:
            return {
                name: pipeline
                | f"numbers of {name}" >> beam.Create(range(len(part)))
                | f"records of {name}" >> beam.Map(functools.partial(_numbered, part))
                for name, part in parts.items()
                if len(part)
            }

        def _generate_examples(self) -> Iterator[Any]:
            raise NotImplementedError("the splits are Beam's collections")

    builder = Builder(data_dir=str(work), file_format="array_record")
    asked = beam.options.pipeline_options.PipelineOptions(list(options))
    try:
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(beam_options=asked))
    except RuntimeError as error:  # of a worker in another process: its traceback, as text
        raise InputError(str(error).strip().splitlines()[-1].partition("InputError: ")[2] or str(error)) from error
    return Path(builder.data_dir)


def _numbered(part: Rows, index: int) -> tuple[int, Record]:
    return index, part[index]
