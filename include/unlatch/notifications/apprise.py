"""PagerDuty, Opsgenie, Teams, SMS and some hundred others: the package apache-airflow-providers-apprise.

Its connection holds the addresses; `to` are tags among them, all when there are none.
"""

from __future__ import annotations

from unlatch.models import Receiver
from unlatch.notifications import notifier, plain_errors


class Apprise:
    """Airflow's apprise provider."""

    name = "apprise"

    def __call__(self, receiver: Receiver, title: str, words: str, marker: str) -> None:  # noqa: ARG002  # no use for it
        """Tell every address of the connection that has one of the tags.

        Raises:
            TransientError: the network does not answer.
            ConfigError: the package or the connection is missing.
        """
        package, module = "apache-airflow-providers-apprise", "airflow.providers.apprise.notifications.apprise"
        apprise = notifier(package, module, "AppriseNotifier")
        given = {"apprise_conn_id": receiver.conn_id} if receiver.conn_id else {}
        with plain_errors(receiver):
            apprise(body=words, notify_type="warning", title=title, tag=list(receiver.to) or "all", **given).notify({})


PLUGIN = Apprise()
