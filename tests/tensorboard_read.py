"""Reads what the TensorBoard tracker wrote, with TensorBoard's own readers: of scalars, and of the hparams table."""

from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler


class Row(NamedTuple):
    """A row of the hparams table: hparams, the last value of each metric, the status's name, start and end."""

    hparams: dict[str, Any]
    metrics: dict[str, float]
    status: str
    began: float
    ended: float


class Board:
    """A TensorBoard on a folder: what it shows in its time series and hparams tabs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.multiplexer = EventMultiplexer()
        self.load()

    def load(self) -> None:
        """Look into the folder again, as TensorBoard does every few seconds."""
        self.multiplexer.AddRunsFromDirectory(str(self.folder))
        self.multiplexer.Reload()

    def runs(self) -> list[str]:
        return sorted(self.multiplexer.Runs())

    def scalars(self, run: str) -> dict[str, list[tuple[int, float, float]]]:
        """Return (step, wall time, value) of each point of a run, by tag."""
        found = {}
        for tag in self.multiplexer.GetAccumulator(run).Tags()["tensors"]:
            if not tag.startswith("_hparams_/"):
                events = self.multiplexer.Tensors(run, tag)
                found[tag] = [(event.step, event.wall_time, event.tensor_proto.float_val[0]) for event in events]
        return found

    def table(self) -> dict[str, Row]:
        """Return the hparams table, by run."""
        provider = MultiplexerDataProvider(self.multiplexer, str(self.folder))
        statuses = api_pb2.Status.values()
        request = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=10_000, allowed_statuses=statuses)
        answer = Handler(RequestContext(), Context(TBContext(data_provider=provider)), "", request).run()
        rows = {}
        for group in answer.session_groups:
            (session,) = group.sessions
            values = {key: getattr(value, value.WhichOneof("kind")) for key, value in group.hparams.items()}
            metrics = {value.name.tag: value.value for value in session.metric_values}
            status = api_pb2.Status.Name(session.status).removeprefix("STATUS_").lower()
            rows[session.name] = Row(values, metrics, status, session.start_time_secs, session.end_time_secs)
        return rows
