"""A plain drive that knows control requests, a label, an object id and quotas."""

from __future__ import annotations

from typing import Any

from support.plain import PlainDrive


class ControlledDrive(PlainDrive):
    """Control requests give their input back, twice; quotas are kept by SID."""

    def __init__(self, **files: bytes) -> None:
        super().__init__(**files)
        self.label = "plain"
        self.object_id = bytes(64)
        self.quotas: dict[bytes, tuple[int, int, int]] = {}
        self.default = (-1, -1, 0)

    def twice(self, p: Any) -> None:
        """Give the input back, as often as it fits but at most twice."""
        answer = (bytes(p.input_buffer_view or b"") * 2)[: p.output_buffer_length]
        if answer:
            p.output_buffer_view[: len(answer)] = answer
        p.bytes_returned = len(answer)

    def on_fsctl(self, p: Any) -> None:
        self.twice(p)

    def on_ioctl(self, p: Any) -> None:
        self.twice(p)

    def on_set_valid_data_length(self, p: Any) -> None:
        pass

    # --- the volume ---

    def on_get_volume_label(self, p: Any) -> None:
        p.buffer = self.label

    def on_set_volume_label(self, p: Any) -> None:
        self.label = p.volume_label

    def on_get_volume_object_id(self, p: Any) -> None:
        p.object_id_view[:] = self.object_id[:16]
        p.extended_information_view[:] = self.object_id[16:]

    def on_set_volume_object_id(self, p: Any) -> None:
        self.object_id = bytes(p.object_id_view) + bytes(p.extended_information_view)

    # --- quotas ---

    def on_query_quotas(self, p: Any) -> None:
        if p.index < 0:
            sid = bytes(p.sid_view)
        elif p.index < len(self.quotas):
            sid = list(self.quotas)[p.index]
            p.sid_out_view[: len(sid)] = sid
        else:
            return
        if sid in self.quotas:
            p.quota_found = True
            p.quota_used, p.quota_threshold, p.quota_limit = self.quotas[sid]

    def on_set_quotas(self, p: Any) -> None:
        sid = bytes(p.sid_view)
        p.quota_found = sid in self.quotas
        if p.remove_quota:
            self.quotas.pop(sid, None)
        else:
            self.quotas[sid] = p.quota_used, p.quota_threshold, p.quota_limit

    def on_close_quotas_enumeration(self, p: Any) -> None:
        pass

    def on_get_default_quota_info(self, p: Any) -> None:
        p.default_quota_threshold, p.default_quota_limit, p.file_system_control_flags = self.default

    def on_set_default_quota_info(self, p: Any) -> None:
        self.default = (
            p.default_quota_threshold,
            p.default_quota_limit,
            p.file_system_control_flags,
        )
