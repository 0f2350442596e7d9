from typing import Any

import pytest

from penstock_server.transport.certificate import MOST_NAMES, names_of_certificate, names_of_context

SUBJECT = ((("organizationName", "corp"),), (("commonName", "loader"),))


@pytest.mark.parametrize(
    ("certificate", "names"),
    [
        (None, ()),
        ({}, ()),
        ({"subject": SUBJECT}, ("cn:loader",)),
        (
            {"subject": SUBJECT, "subjectAltName": (("DNS", "web"), ("URI", "spiffe://corp/web"), ("email", "a@corp"))},
            ("uri:spiffe://corp/web", "dns:web", "email:a@corp", "cn:loader"),
        ),
        (
            {
                "subjectAltName": (
                    ("DNS", "a\0b"),
                    ("DNS", ""),
                    ("DNS", "x" * 600),
                    ("IP Address", "::1"),
                    ("DNS", "ok"),
                )
            },
            ("dns:ok",),
        ),
        ({"subjectAltName": (("othername", "<unsupported>"),)}, ()),
    ],
)
def test_names_of_a_certificate(certificate: Any, names: tuple[str, ...]) -> None:
    assert names_of_certificate(certificate) == names


def test_only_so_many_names_count() -> None:
    assert len(names_of_certificate({"subjectAltName": [("DNS", f"n{n}") for n in range(500)]})) == MOST_NAMES


def test_names_of_the_core() -> None:
    context = {
        "transport_security_type": [b"ssl"],
        "x509_common_name": [b"loader"],
        "peer_dns": [b"web"],
        "peer_uri": [b"spiffe://corp/web"],
    }
    assert names_of_context(context) == ("uri:spiffe://corp/web", "dns:web", "cn:loader")
    assert names_of_context({name.encode(): value for name, value in context.items()}) == names_of_context(context)
    assert names_of_context({**context, "transport_security_type": [b"insecure"]}) == ()
    assert names_of_context({}) == ()
