"""The peer's SETTINGS (RFC 9113, section 6.5.2): validation and effect of each value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.grpc_h2 import frames
from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode

if TYPE_CHECKING:
    from zta_authz.grpc_h2.outbound import Outbound

_MAX_FRAME_BYTES = 2**24 - 1
_MIN_FRAME_BYTES = 2**14


def apply_settings(payload: bytes, out: Outbound) -> None:
    """Apply a SETTINGS payload, up to its first invalid value. Raises `ConnectionFault` for that one.

    Settings that don't concern us (server push, server streams, header lists) and unknown ones are ignored if valid.
    """
    if len(payload) % frames.SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS are 6 bytes each")
    windows: list[int] = []
    for name, value in frames.SETTING.iter_unpack(payload):
        if name == frames.SETTINGS_INITIAL_WINDOW_SIZE:
            if value > frames.MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "an initial window past 2^31-1")
            windows.append(value)
        elif name == frames.SETTINGS_MAX_FRAME_SIZE:
            if not _MIN_FRAME_BYTES <= value <= _MAX_FRAME_BYTES:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame size outside of 2^14 to 2^24-1")
            out.resize_frames(value)
        elif name == frames.SETTINGS_HEADER_TABLE_SIZE:
            out.resize_table(value)
        elif name == frames.SETTINGS_ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
    if (
        windows
    ):  # once for all, because each change visits every open stream and a frame may contain thousands of changes
        out.resize_streams(windows[-1], max(windows))
