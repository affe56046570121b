"""Slack through Airflow's provider: the package apache-airflow-providers-slack.

With channels in `to` the connection holds a bot's token; without, the address of an incoming webhook, which has its
channel of its own.
"""

from __future__ import annotations

import html

from unlatch.models import Receiver
from unlatch.notifications import notifier, plain_errors

_PACKAGE = "apache-airflow-providers-slack"
_MODULES = "airflow.providers.slack.notifications"


class Slack:
    """Airflow's Slack provider."""

    name = "slack"

    def __call__(self, receiver: Receiver, title: str, words: str, marker: str) -> None:  # noqa: ARG002  # no use for it
        """Post to each channel of the receiver, or to the webhook.

        Raises:
            TransientError: Slack does not answer, or is busy.
            ConfigError: the package, the connection or the channel is missing.
        """
        text = html.escape(f"*{title}*\n{words}", quote=False)  # `<!channel>` in a log's words would wake everybody
        if not receiver.to:
            webhook = notifier(_PACKAGE, f"{_MODULES}.slack_webhook", "SlackWebhookNotifier")
            given = {"slack_webhook_conn_id": receiver.conn_id} if receiver.conn_id else {}
            with plain_errors(receiver):
                webhook(text=text, **given).notify({})
            return
        slack = notifier(_PACKAGE, f"{_MODULES}.slack", "SlackNotifier")
        given = {"slack_conn_id": receiver.conn_id} if receiver.conn_id else {}
        with plain_errors(receiver):
            for channel in receiver.to:
                slack(text=text, channel=channel, username="Unlatch", **given).notify({})


PLUGIN = Slack()
