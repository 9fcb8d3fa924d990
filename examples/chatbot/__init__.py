"""A small chat bot: it lets people finish, answers once, follows up after a day, and reports.

omni-worker run examples.chatbot:app

What it would send is printed, one message a second from each number. It needs nats-server 2.14 or
newer.
"""

from .bot import create_app

app = create_app()
