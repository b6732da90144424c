"""Log in at a Kubeflow with e-mail and password, and talk to its pipelines.

This file lies beside the notebooks of a class and needs nothing of the class: it works on any Kubeflow whose login is
dex, behind oauth2-proxy or behind a gateway that asks for a login at its first page.

    client = kubeflow_client(KUBEFLOW_HOST, KUBEFLOW_USERNAME, KUBEFLOW_PASSWORD)

KUBEFLOW_CA_FILE, when set, names the certificate authority of the host: one that browsers know needs none.
"""

import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import requests

if TYPE_CHECKING:
    import kfp

SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SECONDS_PER_CALL = 30


class LoginError(Exception):
    """The host could not be logged in at; the message says why and what mends it."""


class WrongPasswordError(LoginError):
    """The host refused this e-mail with this password; trying again is of no use."""


def login(host: str, username: str, password: str, ca_file: str | None = None) -> requests.Session:
    """A session that carries the login's cookies.

    `host` is where Kubeflow's first page is, e.g. https://198.18.0.100/. The session does not read proxy, netrc or CA
    settings of the environment: pass `verify=ca_file or True` on each call, as here.

    Errors: `LoginError`.
    """
    base = host.rstrip("/")
    verify = ca_file or True
    session = requests.Session()
    # The environment may name a CA bundle without the platform's own, or a proxy that does not know the host.
    session.trust_env = False
    try:
        page = session.get(f"{base}/oauth2/start", params={"rd": "/"}, verify=verify, timeout=SECONDS_PER_CALL)
        if page.status_code == 404:
            # No oauth2-proxy at this path: the first page itself sends one who is not logged in to the login.
            page = session.get(f"{base}/", verify=verify, timeout=SECONDS_PER_CALL)
        at = urlsplit(page.url)
        if at.path.endswith("/auth"):
            # dex offers several ways to log in; the one with e-mail and password is called local.
            local = urlunsplit(at._replace(path=f"{at.path}/local"))
            page = session.get(local, verify=verify, timeout=SECONDS_PER_CALL)
            at = urlsplit(page.url)
        if not at.path.endswith("/login"):
            raise LoginError(
                f"{at.scheme}://{at.netloc}{at.path} answered {page.status_code} and shows no login form; "
                "check KUBEFLOW_HOST: it is the address of the dashboard"
            )
        account = {"login": username, "password": password}
        answer = session.post(page.url, data=account, verify=verify, timeout=SECONDS_PER_CALL)
        if urlsplit(answer.url).path.endswith("/approval"):
            answer = session.post(answer.url, data={"approval": "approve"}, verify=verify, timeout=SECONDS_PER_CALL)
    except requests.exceptions.SSLError as error:
        raise LoginError(
            f"{base} shows a certificate that is not trusted here ({error.__class__.__name__}); "
            "set KUBEFLOW_CA_FILE to the file of its certificate authority"
        ) from None
    except requests.exceptions.RequestException as error:
        raise LoginError(
            f"{base} does not answer ({error.__class__.__name__}); "
            "check KUBEFLOW_HOST: it is the address of the dashboard"
        ) from None
    if "/login" in urlsplit(answer.url).path or answer.status_code == 401:
        raise WrongPasswordError(
            f"{base} refused the password of {username}; check KUBEFLOW_USERNAME and KUBEFLOW_PASSWORD"
        )
    if answer.status_code == 403:
        raise LoginError(f"{base} knows {username} but does not admit it; ask your teacher")
    if not cookie_header(session):
        raise LoginError(f"{base} answered the login with {answer.status_code} and no cookie; ask your teacher")
    return session


def cookie_header(session: requests.Session) -> str:
    """The session's login cookies as one header value (oauth2-proxy cuts a long one into several); empty before it."""
    cookies = session.cookies.get_dict().items()
    return "; ".join(f"{name}={value}" for name, value in cookies if "csrf" not in name and "xsrf" not in name)


def kubeflow_client(host: str, username: str, password: str, namespace: str | None = None) -> "kfp.Client":
    """A pipelines client of `username`, at work in `namespace`: when none is given, the one this notebook runs in.

    Errors: `LoginError`.
    """
    ca_file = os.environ.get("KUBEFLOW_CA_FILE") or None
    session = login(host, username, password, ca_file)
    # Imported late: logging in needs no pipelines, and the import takes a second.
    import kfp

    with warnings.catch_warnings():
        # The client warns on each start that it is for pipelines of version 2, which is what is meant here.
        warnings.simplefilter("ignore", FutureWarning)
        return kfp.Client(
            host=f"{host.rstrip('/')}/pipeline",
            namespace=namespace or own_namespace(),
            cookies=cookie_header(session),
            ssl_ca_cert=ca_file,
        )


def own_namespace() -> str:
    """The namespace this notebook server runs in, as the notebook controller or Kubernetes tells it.

    Errors: `LoginError` outside of a notebook server and of a pod.
    """
    if found := re.fullmatch(r"/notebook/([^/]+)/[^/]+/?", os.environ.get("NB_PREFIX", "")):
        return found[1]
    if SERVICE_ACCOUNT_NAMESPACE.exists():
        return SERVICE_ACCOUNT_NAMESPACE.read_text().strip()
    raise LoginError(
        "this is no notebook server of Kubeflow; say which namespace: kubeflow_client(..., namespace='...')"
    )
