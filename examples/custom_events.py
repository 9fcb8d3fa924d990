"""Event types of your own: a registered schema checks them before anything is sent.

Try it: omni-worker server & python -m examples.custom_events
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, Field

from omni_worker import App, Event, Invalid, InvalidPayload, Valid


class Push(BaseModel):
    """Somebody pushed to a repository."""

    repository: str
    commits: int = Field(ge=1)


PUSH = "custom.github.push"

app = App("webhooks")
app.registry.register(PUSH, Push, description="A push, as GitHub reports it")
# stream="PUSHES" here would have this type's handlers read a stream of that name, which the
# server fills from CUSTOM; publishers need not know.

pushed = asyncio.Event()


@app.on(PUSH, durable="pushes")
async def on_push(event: Event[Push]) -> None:
    """Its payload is a Push: an unreadable one becomes a dead letter and never gets here."""
    print(f"handled: {event.payload.commits} commits to {event.payload.repository}")
    pushed.set()


async def main() -> None:
    """Look at the registry, validate, publish."""
    schema = app.registry.get(PUSH)
    assert schema is not None
    print(f"{schema.type}: {schema.description} (stream {app.registry.get_stream(PUSH)})")

    for payload in ({"repository": "omni", "commits": 3}, {"repository": "omni", "commits": 0}):
        match app.registry.validate(PUSH, payload):
            case Valid(value):
                print(f"valid: {value!r}")
            case Invalid(error):
                print(f"invalid: {error}")

    async with app.running():
        try:
            await app.publish(PUSH, {"commits": 1})
        except InvalidPayload as error:
            print(f"refused: {error}")
        await app.publish(PUSH, Push(repository="omni", commits=3))
        await pushed.wait()


if __name__ == "__main__":
    asyncio.run(main())

# Output:
#
# custom.github.push: A push, as GitHub reports it (stream CUSTOM)
# valid: Push(repository='omni', commits=3)
# invalid: commits: Input should be greater than or equal to 1
# refused: custom.github.push: the payload does not fit its schema: repository: Field required
# handled: 3 commits to omni
