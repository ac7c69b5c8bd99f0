"""Fifty odd secrets: names and values as they really occur, each with a core that gives it away."""

from __future__ import annotations

import json
from urllib.parse import quote

CORE = "x7Qp2LkVb93tZ"
"""What must not come out; random, as secrets are."""

_PEM = f"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq{CORE}\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"
_ACCOUNT = json.dumps({"type": "service_account", "private_key": _PEM, "client_id": "1", "token": CORE})

VALUES: dict[str, str] = {
    "SECRET_KEY": CORE,
    "DATABASE_PASSWORD": f"p@ss:/?#[]{CORE}%20",
    "DATABASE_DSN": f"postgresql+psycopg://shop:{CORE}@db.example:5432/shop?sslmode=require",
    "DATABASE_DSN_QUOTED": f"postgresql://shop:{quote('a/b@' + CORE, safe='')}@db/shop",
    "DATABASE_DSN_QUERY": f"postgresql://db/shop?user=shop&password={CORE}",
    "REDIS_PASSWORD_URL": f"redis://:{CORE}@cache:6379/0",
    "REDIS_TLS_URL": f"rediss://default:{CORE}@cache.example:6380/0?ssl_cert_reqs=required",
    "SENTINEL_URL": f"redis+sentinel://:{CORE}@s1:26379,s2:26379/mymaster/0",
    "AMQP_URL": f"amqps://shop:{CORE}@mq.example/vhost",
    "MONGO_URL": f"mongodb+srv://shop:{CORE}@cluster.example/?retryWrites=true",
    "SMTP_URL": f"smtp://mailer%40example.com:{CORE}@mail.example:587",
    "SENTRY_URL": f"https://{CORE}@o1.ingest.example/42",
    "SLACK_WEBHOOK": f"https://hooks.slack.example/services/T0/B0/{CORE}",
    "SIGNED_LINK": f"https://bucket.example/file?X-Amz-Credential=AKIA&X-Amz-Signature={CORE}",
    "BASIC_AUTH": f"Basic {CORE}==",
    "BEARER": f"Bearer {CORE}",
    "AUTH_HEADER": f"Authorization: Bearer {CORE}",
    "COOKIE": f"session={CORE}; Path=/",
    "OTLP_HEADER_LIST": f"authorization=Bearer {CORE},x-api-key={CORE}",
    "AWS_ACCESS_KEY_ID": f"AKIA{CORE}",
    "AWS_SECRET_ACCESS_KEY": f"wJalrXUtnFEMI/K7MDENG/{CORE}",
    "GOOGLE_APPLICATION_CREDENTIALS_JSON": _ACCOUNT,
    "AZURE_CONNECTION": f"DefaultEndpointsProtocol=https;AccountName=shop;AccountKey={CORE}==;EndpointSuffix=x",
    "GITHUB_TOKEN": f"ghp_{CORE}0123456789abcdefg",
    "GITLAB_TOKEN": f"glpat-{CORE}",
    "STRIPE_KEY": f"sk_live_{CORE}",
    "SLACK_TOKEN": f"xoxb-123-456-{CORE}",
    "VAULT_TOKEN": f"hvs.{CORE}",
    "JWT": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{CORE}",
    "FERNET_KEY": f"{CORE}ZmDfcTF7_60GrrY167zsiPd67pEvs0aG=",
    "HEX_KEY": "deadbeef" * 7 + CORE,
    "BASE64_KEY": f"{CORE}+/abc+/def==",
    "UUID_KEY": f"123e4567-e89b-12d3-a456-{CORE}",
    "PRIVATE_KEY": _PEM,
    "PRIVATE_KEY_ONE_LINE": _PEM.replace("\n", "\\n"),
    "CERTIFICATE_WITH_KEY": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n" + _PEM,
    "SSH_KEY": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CORE}\n-----END OPENSSH PRIVATE KEY-----",
    "JSON_OBJECT": json.dumps({"password": CORE, "api_key": CORE}),
    "JSON_LIST": json.dumps([{"secret": CORE}]),
    "YAML_TEXT": f"password: {CORE}\ntoken: '{CORE}'",
    "MULTILINE": f"first line\n{CORE}\nlast line",
    "UNICODE": f"пароль-ключ-{CORE}-ß",
    "EMOJI": f"🔑{CORE}🔒",
    "QUOTES": f"'\"{CORE}\"'",
    "BACKSLASHES": f"\\{CORE}\\n\\t",
    "CONTROL": f"\x1b[31m{CORE}\x07",
    "SPACES": f"  {CORE}  ",
    "COMMAS": f"{CORE},{CORE},",
    "TEMPLATE": f"${{{CORE}}} $({CORE}) %({CORE})s",
    "PERCENT": f"%2F{CORE}%00%zz",
    "LONG": CORE * 40,
    "HTML": f"<script>{CORE}</script>",
}
