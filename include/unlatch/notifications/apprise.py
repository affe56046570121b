"""PagerDuty, Opsgenie, Teams, SMS and some hundred others: the package apache-airflow-providers-apprise.

Its connection holds the addresses; `to` are tags among them, all when there are none. Airflow's own notifier does not
say whether anybody was told: apprise answers that with a value, which it drops. So the hook is used instead.
"""

from __future__ import annotations

from unlatch.errors import ConfigError, TransientError
from unlatch.models import Receiver
from unlatch.notifications import notifier, plain_errors

_PACKAGE = "apache-airflow-providers-apprise"


class Apprise:
    """Airflow's apprise provider."""

    name = "apprise"

    def __call__(self, receiver: Receiver, title: str, words: str, marker: str) -> None:  # noqa: ARG002  # no use for it
        """Tell every address of the connection that has one of the tags.

        Raises:
            TransientError: none of them could be told.
            ConfigError: some of them could not; or none has the tag, or the package or the connection is missing.
        """
        hook_class = notifier(_PACKAGE, "airflow.providers.apprise.hooks.apprise", "AppriseHook")
        apprise = notifier(_PACKAGE, "apprise", "Apprise")
        with plain_errors(receiver):
            hook, addresses = (
                hook_class(**({"apprise_conn_id": receiver.conn_id} if receiver.conn_id else {})),
                apprise(),
            )
            hook.set_config_from_conn(conn=hook.get_connection(hook.apprise_conn_id), apprise_obj=addresses)
            found = list(addresses.find(list(receiver.to) or "all"))
            silent = [
                str(address.service_name)
                for address in found
                if not address.notify(body=words, title=title, notify_type="warning", body_format="text")
            ]
        if not found:
            raise ConfigError(
                f"{receiver.name} could not be told by apprise: no address that it understands has one of the tags "
                f"{', '.join(receiver.to) or 'all'}.",
                next_step=f"correct config in the extra of {hook.apprise_conn_id}, or to of {receiver.name}.",
            )
        if len(silent) == len(found):
            raise TransientError(
                f"{receiver.name} could not be told by apprise: {', '.join(silent)} did not take it.",
                next_step="it is tried again; if it stays so, the task's log has apprise's own words.",
            )
        if silent:
            raise ConfigError(
                f"{receiver.name} was told by apprise in part: {', '.join(silent)} did not take it.",
                next_step="correct that address, or give it a receiver of its own; the others hear it again meanwhile.",
            )


PLUGIN = Apprise()
