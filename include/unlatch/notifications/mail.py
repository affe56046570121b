"""Mail through Airflow's SMTP provider and its connection.

Each message has a `Message-ID` made of its marker: should a worker die between sending it and noting that, the second
one is the same message to every mail program.
"""

from __future__ import annotations

import hashlib
import smtplib
from html import escape

from unlatch.models import Receiver
from unlatch.notifications import notifier, plain_errors

_REFUSED = (
    smtplib.SMTPAuthenticationError,
    smtplib.SMTPRecipientsRefused,
    smtplib.SMTPSenderRefused,
    smtplib.SMTPNotSupportedError,
)


class Mail:
    """Airflow's SMTP provider."""

    name = "mail"

    def __call__(self, receiver: Receiver, title: str, words: str, marker: str) -> None:
        """Send one message to all addresses of the receiver.

        Raises:
            TransientError: the server does not answer, or not now.
            ConfigError: the connection is missing or refused, or the server refuses an address.
        """
        smtp = notifier("apache-airflow-providers-smtp", "airflow.providers.smtp.notifications.smtp", "SmtpNotifier")
        digest = hashlib.sha256(marker.encode("utf-8", "backslashreplace")).hexdigest()[:32]
        with plain_errors(receiver, refused=_REFUSED):
            smtp(
                to=list(receiver.to),
                subject=" ".join(title.split()),
                html_content=f"<pre>{escape(words)}</pre>",
                smtp_conn_id=receiver.conn_id,
                custom_headers={
                    "Message-ID": f"<{digest}@unlatch>",
                    "X-Unlatch": digest,
                    "Auto-Submitted": "auto-generated",
                },
            ).notify({})


PLUGIN = Mail()
