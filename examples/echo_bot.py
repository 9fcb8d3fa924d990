"""Echo: answer each text of a WhatsApp chat with the same text, by Omni's HTTP API.

Beside a running Omni, with `pip install 'omni-worker[omni]'`:
OMNI_API_KEY=… omni-worker run examples.echo_bot:app
"""

from __future__ import annotations

from omni_worker import App, Event, MessageReceivedPayload
from omni_worker.omni import Omni

app = App("echo")
omni = app.use(Omni())  # OMNI_URL and OMNI_API_KEY


@app.on(
    "message.received",
    channel=["whatsapp-baileys", "whatsapp-cloud"],
    durable="echo-bot",
    live_only=True,  # no answers to what a new phone brings along from years ago
    order_by=lambda event: event.payload.chat_id,
)
async def echo(event: Event[MessageReceivedPayload]) -> None:
    """Show that we type, quote the message and repeat it."""
    message = event.payload
    if message.content.type != "text" or not message.content.text:
        return
    await omni.mark_read(message.chat_id, [message.external_id])
    await omni.send_presence(message.chat_id, "typing", seconds=2)
    await omni.send_text(message.chat_id, message.content.text, reply_to=message.external_id)
    print(f"{event.instance}: answered message {message.external_id}", flush=True)


# Output for a text, a picture and another text:
#
# wa-001: answered message m-1
# wa-001: answered message m-3
