"""Slack through Airflow's provider: the package apache-airflow-providers-slack, a connection with the bot's token."""

from __future__ import annotations

from unlatch.models import Receiver
from unlatch.notifications import notifier, plain_errors


class Slack:
    """Airflow's Slack provider."""

    name = "slack"

    def __call__(self, receiver: Receiver, title: str, words: str, marker: str) -> None:  # noqa: ARG002  # no use for it
        """Post to each channel of the receiver.

        Raises:
            TransientError: Slack does not answer.
            ConfigError: the package, the connection or the channel is missing.
        """
        slack = notifier(
            "apache-airflow-providers-slack", "airflow.providers.slack.notifications.slack", "SlackNotifier"
        )
        given = {"slack_conn_id": receiver.conn_id} if receiver.conn_id else {}
        with plain_errors(receiver):
            for channel in receiver.to or ("general",):
                slack(text=f"*{title}*\n{words}", channel=channel, **given).notify({})


PLUGIN = Slack()
