"""Gradio's own way of sharing, on a port that is behind our gate already.

`share=True` would load scripts from elsewhere and know nothing of the gate, so only the
tunnel is taken from Gradio (6.31; a contract test watches it).
"""

from __future__ import annotations

import atexit
from typing import Any


def start(host: str, port: int, name: str) -> str:
    """The address at Gradio's share servers; raises whatever went wrong there."""
    from gradio import networking

    return str(
        networking.setup_tunnel(
            local_host=host,
            local_port=port,
            share_token=name,
            share_server_address=None,
            share_server_tls_certificate=None,
        )
    )


def stop(name: str) -> None:
    """Ends the programs that `start` left for this name, and Gradio's memory of them."""
    from gradio import tunneling

    known: list[Any] = tunneling.CURRENT_TUNNELS
    for tunnel in [t for t in known if t.share_token == name]:
        known.remove(tunnel)
        atexit.unregister(tunnel.kill)
        process, tunnel.proc = tunnel.proc, None
        if process is not None:
            process.kill()
            process.wait()
